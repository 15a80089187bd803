import assert from 'node:assert/strict'
import { createPublicKey, sign, verify } from 'node:crypto'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { integer, sequence } from './der.ts'
import { derToRawSignature, rawToDerSignature } from './ecdsa.ts'
import { generateEcKeyPair } from './private-key.ts'

const message = utf8Bytes('message')

test('derToRawSignature() and rawToDerSignature() agree with OpenSSL in both directions', () => {
  for (const [type, fieldBytes] of [
    ['ec-p256', 32],
    ['ec-p384', 48],
  ] as const) {
    const { privateKey } = generateEcKeyPair(type)
    const key = createPublicKey(privateKey)
    // Enough for numbers of every length and sign to occur.
    for (let i = 0; i < 200; i++) {
      const raw = derToRawSignature(sign('sha256', message, privateKey), fieldBytes)
      assert.equal(raw.length, 2 * fieldBytes)
      assert.ok(verify('sha256', message, { key, dsaEncoding: 'ieee-p1363' }, raw))
      assert.ok(verify('sha256', message, key, rawToDerSignature(raw)))
    }
  }
})

test('rawToDerSignature() keeps numbers positive and short', () => {
  assert.equal(
    rawToDerSignature(Uint8Array.of(0, 1, 0x80, 0)).toHex(),
    '300802010102030080 00'.replace(' ', ''),
  )
  assert.throws(() => rawToDerSignature(new Uint8Array(3)), RangeError)
  assert.throws(() => rawToDerSignature(new Uint8Array(0)), RangeError)
})

test('derToRawSignature() refuses a number that is too long, negative, padded or followed by more', () => {
  const one = integer(1n)
  for (const der of [
    sequence(one, integer(2n ** 256n)),
    sequence(one, Uint8Array.of(2, 1, 0x80)),
    sequence(one, Uint8Array.of(2, 2, 0, 1)),
    sequence(one, one, one),
    sequence(one),
    new Uint8Array(0),
  ]) {
    assert.throws(() => derToRawSignature(der, 32), SyntaxError)
  }
  const whole = sequence(one, integer(2n ** 255n))
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => derToRawSignature(whole.subarray(0, length), 32), SyntaxError)
  }
})
