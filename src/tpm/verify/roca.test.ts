import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { hasRocaFingerprint } from './roca.ts'

test('hasRocaFingerprint() is false for sound keys', () => {
  for (let round = 0; round < 5; round++) {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 })
    const { n = '' } = publicKey.export({ format: 'jwk' })
    assert.equal(hasRocaFingerprint(Uint8Array.fromBase64(n, { alphabet: 'base64url' })), false)
  }
})

test('hasRocaFingerprint() is true for a power of 65537 modulo the primes, and false one beside it', () => {
  const product = [
    2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83,
  ]
    .concat([89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167])
    .reduce((running, prime) => running * BigInt(prime), 1n)
  const vulnerable = (65537n ** 40n % product) + product * 12345678901234567890n
  const bytes = (value: bigint) => Uint8Array.fromHex(value.toString(16).padStart(256, '0'))
  assert.equal(hasRocaFingerprint(bytes(vulnerable)), true)
  assert.equal(hasRocaFingerprint(bytes(vulnerable + 2n)), false)
})
