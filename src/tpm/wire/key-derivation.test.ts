import assert from 'node:assert/strict'
import { createECDH } from 'node:crypto'
import { test } from 'node:test'
import { SystemRandom } from '#base/random.ts'
import { curves } from './algorithms.ts'
import { decryptCfb, encryptCfb, kdfa, kdfe } from './key-derivation.ts'
import { parseWhole } from './marshal.ts'
import type { EccPublicArea } from './public-area.ts'
import { padLeft } from './public-key.ts'
import { shareSecret } from './shared-secret.ts'
import { endorsementKeyProfiles } from './templates.ts'

const key = Uint8Array.from({ length: 32 }, (_, at) => at)
const u = Uint8Array.of(1, 2)
const v = Uint8Array.of(3)

// The expected values come from an implementation in another language.
test('kdfa() is SP 800-108 in counter mode with the TPM’s label and sizes', () => {
  assert.equal(
    kdfa('sha256', key, { label: 'STORAGE', u, v }, 128).toHex(),
    '435071b2e2f41e2890e61c011d351253',
  )
  assert.equal(
    kdfa('sha384', key, { label: 'CFB', u, v }, 512).toHex(),
    '0d0b48a0c3e6a9eb73c7caa6ef4e9a05fc77cab0e8f55e3872ab7f845fcada8a8f990d18e9f9dbbd6ddb9d1eb0b95296930a9dd2dcabd469677ce51c0b94bbc0',
  )
})

test('kdfe() is SP 800-56A with the TPM’s label', () => {
  assert.equal(
    kdfe('sha256', key, { label: 'IDENTITY', u, v }, 384).toHex(),
    'ee5531dcd3b0558482894eac70f6918107e8ee74cb2a357ba2f12122c30f5ee2b29f7631be88658ca9e88138bd52cbff',
  )
})

test('decryptCfb() inverts encryptCfb() for AES-128 and AES-256', () => {
  for (const length of [16, 32]) {
    const cipher = encryptCfb(key.subarray(0, length), new Uint8Array(16), u)
    assert.deepEqual(decryptCfb(key.subarray(0, length), new Uint8Array(16), cipher), u)
  }
})

test('shareSecret() agrees with the holder of the key, also on numbers with leading zeros', () => {
  const template = endorsementKeyProfiles.find(({ name }) => name === 'ecc-p384-high')?.template
  assert.ok(template?.type === 'ecc')
  const { opensslName, fieldBytes } = curves[template.curve]
  let shortNumbers = 0
  // One in some 85 has one; that none of 3,000 has does not happen.
  for (let round = 0; round < 300 || (shortNumbers === 0 && round < 3000); round++) {
    const holder = createECDH(opensslName)
    const point = new Uint8Array(holder.generateKeys())
    const area: EccPublicArea = {
      ...template,
      x: point.slice(1, 1 + fieldBytes),
      y: point.slice(1 + fieldBytes),
    }
    const { secret, encrypted } = shareSecret(area, 'SECRET', new SystemRandom())
    const [x, y] = parseWhole(encrypted, (reader) => [reader.sized(), reader.sized()] as const)
    const theirs = Uint8Array.of(4, ...padLeft(x, fieldBytes), ...padLeft(y, fieldBytes))
    const z = new Uint8Array(holder.computeSecret(theirs))
    if (z[0] === 0 || x[0] === 0 || area.x[0] === 0) shortNumbers++
    assert.equal(z.length, fieldBytes)
    assert.deepEqual(kdfe('sha384', z, { label: 'SECRET', u: x, v: area.x }, 384), secret)
  }
  assert.ok(shortNumbers > 0)
})
