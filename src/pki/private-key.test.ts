import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { test } from 'node:test'
import { exportPkcs8, generateEcKeyPair, generateKeyPair, type KeyType } from './private-key.ts'
import { describePublicKey } from './public-key.ts'

const types: readonly KeyType[] = ['ec-p256', 'ec-p384', 'rsa-2048']

for (const type of types) {
  test(`generateKeyPair() and exportPkcs8() give what OpenSSL would for ${type}`, async () => {
    const { privateKey, publicKey } = await generateKeyPair(type)
    const pkcs8 = exportPkcs8(privateKey)
    assert.equal(pkcs8.toHex(), privateKey.export({ format: 'der', type: 'pkcs8' }).toString('hex'))
    assert.equal(
      publicKey.toHex(),
      createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).toString('hex'),
    )
    assert.equal(
      createPrivateKey({
        key: `-----BEGIN PRIVATE KEY-----\n${pkcs8.toBase64()}\n-----END PRIVATE KEY-----`,
        format: 'pem',
      }).asymmetricKeyType,
      privateKey.asymmetricKeyType,
    )
  })
}

test('generateKeyPair() makes keys of the asked size', async () => {
  const { publicKey } = await generateKeyPair('rsa-2048')
  const key = describePublicKey(publicKey)
  assert.equal(key.type === 'rsa' && key.modulusBits, 2048)
})

test('exportPkcs8() keeps leading zeros of the private number', () => {
  // One key in 256 has a leading zero; JWK keeps it (RFC 7518 §6.2.2.1).
  for (let i = 0; i < 300; i++) {
    const { privateKey } = generateEcKeyPair('ec-p256')
    assert.equal(exportPkcs8(privateKey).length, 138)
  }
})
