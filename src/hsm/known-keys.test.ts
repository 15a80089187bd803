import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { KnownKeys } from './known-keys.ts'
import type { KeyDescription } from './protocol.ts'

let lastRef = 0
const describe = (label: string): KeyDescription => ({
  label,
  type: 'ec-p256',
  ref: ++lastRef,
  publicKey: generateEcKeyPair('ec-p256').publicKey,
  id: Uint8Array.of(1),
  attributes: {},
})

const a = describe('a')
const found = (...keys: KeyDescription[]) => ({ keys, refused: [], isOurToken: true })

function knowing(...keys: KeyDescription[]): KnownKeys {
  const known = new KnownKeys(silentLog)
  known.meet(found(...keys))
  return known
}

test('KnownKeys.meet() keeps the objects of keys that are there again', () => {
  const known = knowing(a)
  const before = known.byLabel.get('a')
  known.meet(found(describe('b'), { ...a, ref: 99 }))
  assert.equal(known.byLabel.get('a'), before)
  assert.deepEqual([...known.byLabel.keys()], ['a', 'b'])
})

test('KnownKeys.meet() forgets what our token has lost or has another one of', () => {
  assert.equal(knowing(a).byLabel.size, 1)
  const lost = knowing(a)
  lost.meet(found())
  assert.equal(lost.byLabel.size, 0)
  const replaced = knowing(a)
  const before = replaced.byLabel.get('a')
  const other = describe('a')
  replaced.meet(found(other))
  assert.notEqual(replaced.byLabel.get('a'), before)
  assert.equal(replaced.byLabel.get('a')?.isSameAs(other), true)
})

test('KnownKeys.meet() forgets nothing for another token of the same name', () => {
  const known = knowing(a)
  const before = known.byLabel.get('a')
  known.meet({ ...found(describe('a')), isOurToken: false })
  assert.equal(known.byLabel.get('a'), before)
})

test('KnownKeys.meet() takes none of several keys of one label, unless one is known', () => {
  const other = describe('a')
  assert.equal(knowing(a, other).byLabel.size, 0)
  const known = knowing(a)
  assert.equal(known.meet(found(other, { ...a, ref: 99 })).get('a')?.ref, 99)
  assert.equal(known.meet(found(other, a, { ...a, ref: 100 })).get('a'), undefined)
})
