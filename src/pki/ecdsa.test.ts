import assert from 'node:assert/strict'
import { createPublicKey, sign, verify } from 'node:crypto'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { rawToDerSignature } from './ecdsa.ts'
import { generateEcKeyPair } from './private-key.ts'

const message = utf8Bytes('message')

test('rawToDerSignature() makes what OpenSSL verifies', () => {
  for (const type of ['ec-p256', 'ec-p384'] as const) {
    const { privateKey } = generateEcKeyPair(type)
    const publicKey = createPublicKey(privateKey)
    // Enough for numbers of every length and sign to occur.
    for (let i = 0; i < 200; i++) {
      const raw = sign('sha256', message, { key: privateKey, dsaEncoding: 'ieee-p1363' })
      assert.ok(verify('sha256', message, publicKey, rawToDerSignature(raw)))
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
