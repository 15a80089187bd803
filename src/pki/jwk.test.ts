import assert from 'node:assert/strict'
import { type createPublicKey, generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { type JsonObject, stringMember } from './json.ts'
import { jwkToPublicKey, publicKeyToJwk } from './jwk.ts'

const spki = (key: ReturnType<typeof createPublicKey>): Uint8Array =>
  new Uint8Array(key.export({ format: 'der', type: 'spki' }))

const keys = {
  'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey,
  'P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey,
  'P-521': generateKeyPairSync('ec', { namedCurve: 'P-521' }).publicKey,
  'RSA 2048': generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey,
}

for (const [name, key] of Object.entries(keys)) {
  test(`publicKeyToJwk() and jwkToPublicKey() agree with OpenSSL for ${name}`, () => {
    const jwk = publicKeyToJwk(spki(key))
    assert.deepEqual(jwk, key.export({ format: 'jwk' }))
    assert.deepEqual(jwkToPublicKey({ ...jwk, use: 'jwt-svid', extra: 1 }), spki(key))
  })
}

test('publicKeyToJwk() writes Ed25519 and refuses types it does not know', () => {
  const { publicKey } = generateKeyPairSync('ed25519')
  assert.deepEqual(publicKeyToJwk(spki(publicKey)), publicKey.export({ format: 'jwk' }))
  const unknown = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey
  assert.throws(() => publicKeyToJwk(spki(unknown)), RangeError)
})

const p256 = publicKeyToJwk(spki(keys['P-256'])) as JsonObject
const x256 = stringMember(p256, 'x') ?? ''
const rsa = publicKeyToJwk(spki(keys['RSA 2048'])) as JsonObject
const weak = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' })

for (const [name, jwk] of Object.entries<JsonObject>({
  'a key without type': { ...p256, kty: null },
  'an unknown type': { ...p256, kty: 'AKP' },
  'a symmetric key': { kty: 'oct', k: 'AAAA' },
  'an unknown curve': { ...p256, crv: 'secp256k1' },
  'an inherited name as curve': { ...p256, crv: 'constructor' },
  'the coordinates of another curve': { ...p256, crv: 'P-384' },
  'a point off its curve': { ...p256, y: x256 },
  'a missing coordinate': { kty: 'EC', crv: 'P-256', x: x256 },
  'padded base64': { ...p256, x: `${x256}=` },
  'a modulus of 1024 bits': weak as JsonObject,
  'a modulus of 9216 bits': { ...rsa, n: '_'.repeat((9216 / 8 / 3) * 4) },
  'an even exponent': { ...rsa, e: 'AQAC' },
  'exponent 1': { ...rsa, e: 'AQ' },
  'an exponent of five bytes': { ...rsa, e: 'AQAAAAE' },
  'an empty modulus': { ...rsa, n: '' },
})) {
  test(`jwkToPublicKey() refuses ${name}`, () => {
    assert.throws(
      () => jwkToPublicKey(jwk),
      (error) => error instanceof SyntaxError || error instanceof RangeError,
    )
  })
}
