import assert from 'node:assert/strict'
import { createPublicKey, hash } from 'node:crypto'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { bitString, derNull, oid, sequence } from '#pki/der.ts'
import { publicKeyBits } from '#pki/public-key.ts'
import { readVectors } from '../../test/support/vectors.ts'
import {
  generateMlDsaKeyPair,
  isMlDsaSignedBy,
  type MlDsaParameterSet,
  mlDsaKeyPairOfSeed,
  mlDsaParameterSets,
  mlDsaParameters,
  mlDsaSeed,
  parseMlDsaPublicKey,
  signMlDsa,
} from './ml-dsa.ts'

interface Vectors {
  readonly parameterSets: readonly {
    readonly parameterSet: MlDsaParameterSet
    readonly keys: readonly { readonly seed: string; readonly publicKeySha256: string }[]
    readonly publicKey: string
    readonly signatures: readonly {
      readonly comment: string
      readonly message: string
      readonly context: string
      readonly signature: string
      readonly valid: boolean
    }[]
  }[]
}

const vectors = readVectors<Vectors>('ml-dsa')
const bytes = (base64: string): Uint8Array => Uint8Array.fromBase64(base64)
const message = utf8Bytes('what is signed')

for (const { parameterSet, keys, publicKey, signatures } of vectors.parameterSets) {
  const { oid: algorithm } = mlDsaParameters[parameterSet]
  const spki = sequence(sequence(oid(algorithm)), bitString(bytes(publicKey)))

  test(`mlDsaKeyPairOfSeed() makes NIST's keys of their seeds (${parameterSet})`, () => {
    assert.equal(keys.length, 3)
    for (const { seed, publicKeySha256 } of keys) {
      const pair = mlDsaKeyPairOfSeed(parameterSet, Uint8Array.fromHex(seed))
      assert.equal(hash('sha256', publicKeyBits(pair.publicKey), 'hex'), publicKeySha256)
      assert.equal(mlDsaSeed(pair).toHex(), seed)
    }
  })

  for (const { comment, message, context, signature, valid } of signatures) {
    test(`isMlDsaSignedBy() judges Wycheproof's "${comment}" (${parameterSet})`, () => {
      const signed = {
        message: bytes(message),
        signature: bytes(signature),
        context: bytes(context),
      }
      assert.equal(isMlDsaSignedBy(parseMlDsaPublicKey(spki), signed), valid)
    })
  }

  test(`a key and a signature have the sizes of FIPS 204 (${parameterSet})`, async () => {
    const { publicKeyBytes, signatureBytes } = mlDsaParameters[parameterSet]
    const pair = await generateMlDsaKeyPair(parameterSet)
    assert.equal(publicKeyBits(pair.publicKey).length, publicKeyBytes)
    assert.equal((await signMlDsa(pair.privateKey, message)).length, signatureBytes)
    // Node's own encoder, which is OpenSSL's, writes the same SubjectPublicKeyInfo.
    const exported = createPublicKey(pair.privateKey).export({ format: 'der', type: 'spki' })
    assert.deepEqual(pair.publicKey, new Uint8Array(exported))
  })
}

test('isMlDsaSignedBy() refuses every truncation, a bit flipped anywhere, and another message', async () => {
  const pair = mlDsaKeyPairOfSeed('ml-dsa-44', new Uint8Array(32).fill(1))
  const key = parseMlDsaPublicKey(pair.publicKey)
  const signature = await signMlDsa(pair.privateKey, message)
  assert.ok(isMlDsaSignedBy(key, { message, signature }))
  for (let length = 0; length < signature.length; length++) {
    assert.ok(!isMlDsaSignedBy(key, { message, signature: signature.subarray(0, length) }))
  }
  assert.ok(!isMlDsaSignedBy(key, { message, signature: new Uint8Array([...signature, 0]) }))
  for (let at = 0; at < signature.length; at += 7) {
    const flipped = Uint8Array.from(signature)
    flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8))
    assert.ok(!isMlDsaSignedBy(key, { message, signature: flipped }), `a bit of byte ${at}`)
  }
  assert.ok(!isMlDsaSignedBy(key, { message: utf8Bytes('another'), signature }))
  assert.ok(!isMlDsaSignedBy(key, { message, signature, context: Uint8Array.of(1) }))
})

test('isMlDsaSignedBy() refuses a signature by another key, and one of another parameter set', async () => {
  const [one, two] = [1, 2].map((n) =>
    mlDsaKeyPairOfSeed('ml-dsa-44', new Uint8Array(32).fill(n)),
  ) as [ReturnType<typeof mlDsaKeyPairOfSeed>, ReturnType<typeof mlDsaKeyPairOfSeed>]
  const signature = await signMlDsa(one.privateKey, message)
  assert.ok(!isMlDsaSignedBy(parseMlDsaPublicKey(two.publicKey), { message, signature }))
  const larger = mlDsaKeyPairOfSeed('ml-dsa-65', new Uint8Array(32).fill(1))
  assert.ok(!isMlDsaSignedBy(parseMlDsaPublicKey(larger.publicKey), { message, signature }))
})

test('parseMlDsaPublicKey() refuses every truncation, parameters, wrong lengths and other algorithms', () => {
  const { publicKey } = mlDsaKeyPairOfSeed('ml-dsa-44', new Uint8Array(32).fill(1))
  assert.equal(parseMlDsaPublicKey(publicKey).parameterSet, 'ml-dsa-44')
  for (let length = 0; length < publicKey.length; length++) {
    assert.throws(() => parseMlDsaPublicKey(publicKey.slice(0, length)), SyntaxError)
  }
  const bits = publicKeyBits(publicKey)
  const algorithm = oid(mlDsaParameters['ml-dsa-44'].oid)
  const withParameters = sequence(sequence(algorithm, derNull()), bitString(bits))
  assert.throws(() => parseMlDsaPublicKey(withParameters), /takes no parameters/)
  const short = sequence(sequence(algorithm), bitString(bits.subarray(1)))
  assert.throws(() => parseMlDsaPublicKey(short), /has 1311 bytes, not 1312/)
  const other = sequence(sequence(oid(mlDsaParameters['ml-dsa-65'].oid)), bitString(bits))
  assert.throws(() => parseMlDsaPublicKey(other), /has 1312 bytes, not 1952/)
  const ed25519 = sequence(sequence(oid('1.3.101.112')), bitString(bits))
  assert.throws(() => parseMlDsaPublicKey(ed25519), RangeError)
})

test('mlDsaKeyPairOfSeed() refuses a seed of another length', () => {
  assert.deepEqual(mlDsaParameterSets, ['ml-dsa-44', 'ml-dsa-65', 'ml-dsa-87'])
  assert.throws(() => mlDsaKeyPairOfSeed('ml-dsa-44', new Uint8Array(31)), /31 bytes/)
})
