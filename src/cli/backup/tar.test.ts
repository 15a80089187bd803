import assert from 'node:assert/strict'
import { test } from 'node:test'
import { blockBytes, paddingBytes, parseTarHeader, tarHeader } from './tar.ts'

const entry = { name: 'datastore.sqlite3', bytes: 123_456 }
const header = (): Uint8Array => tarHeader(entry, { mtimeSeconds: 1_767_225_600 })

test('parseTarHeader() reads what tarHeader() wrote', () => {
  assert.equal(header().length, blockBytes)
  assert.deepEqual(parseTarHeader(header()), entry)
  assert.equal(parseTarHeader(new Uint8Array(blockBytes)), undefined)
  assert.deepEqual([0, 1, 511, 512, 513].map(paddingBytes), [0, 511, 1, 0, 511])
})

test('parseTarHeader() refuses a header with any byte changed, and one that is cut', () => {
  for (let at = 0; at < 300; at++) {
    const changed = header()
    changed[at] = (changed[at] ?? 0) ^ 1
    // Two bytes of the checksum's own field end it, and may be either.
    if (at === 154 || at === 155) continue
    assert.throws(() => parseTarHeader(changed), SyntaxError, String(at))
  }
  for (const length of [0, 1, 511]) {
    assert.throws(() => parseTarHeader(header().slice(0, length)), /ends too early/)
  }
})

test('tarHeader() refuses names and sizes that it cannot write', () => {
  for (const wrong of [
    { name: '', bytes: 0 },
    { name: 'a'.repeat(101), bytes: 0 },
    { name: 'a\n', bytes: 0 },
    { name: 'a', bytes: 8 ** 11 },
  ]) {
    assert.throws(() => tarHeader(wrong, { mtimeSeconds: 0 }), RangeError)
  }
})
