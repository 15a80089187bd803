import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { pcrSelection } from '#tpm/wire/pcr-selection.ts'
import {
  encodeAnswer,
  encodeChallenge,
  encodeEvidence,
  parseAnswer,
  parseChallenge,
  parseEvidence,
  proofOf,
  type TranscriptParts,
  transcript,
} from './tpm.ts'

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)

const evidence = {
  endorsementKey: bytes(40, 1),
  attestationKey: bytes(30, 2),
  certificates: [bytes(20, 3), bytes(10, 4)],
  claims: { manufacturer: 0x49465800, firmwareVersion: 7n, model: 'SLB9672' },
}
const challenge = {
  credential: { credentialBlob: bytes(20, 1), encryptedSecret: bytes(30, 2) },
  nonce: bytes(32, 3),
  selection: pcrSelection('sha256', [0, 7]),
}
const answer = {
  proof: bytes(32, 1),
  quote: {
    attested: bytes(20, 2),
    signature: bytes(10, 3),
    pcrValues: [bytes(32, 4), bytes(32, 5)],
  },
}

for (const [name, encoded, parse, value] of [
  ['evidence', encodeEvidence(evidence), parseEvidence, evidence],
  ['a challenge', encodeChallenge(challenge), parseChallenge, challenge],
  ['an answer', encodeAnswer(answer), parseAnswer, answer],
] as const) {
  test(`${name} is read as it was written`, () => {
    assert.deepEqual(parse(encoded), value)
  })

  test(`${name} is refused at every other length and with another version`, () => {
    for (let length = 0; length < encoded.length; length++)
      assert.throws(() => parse(encoded.subarray(0, length)), RangeError)
    assert.throws(() => parse(Uint8Array.of(...encoded, 0)), /1 bytes too many/)
    assert.throws(() => parse(encoded.with(0, 2)), /version 2/)
  })

  test(`reading ${name} throws nothing but RangeError and TypeError, whatever bit flips`, () => {
    for (let bit = 0; bit < encoded.length * 8; bit++) {
      try {
        parse(encoded.with(bit >> 3, (encoded[bit >> 3] ?? 0) ^ (1 << (bit & 7))))
      } catch (error) {
        assert.ok(error instanceof RangeError || error instanceof TypeError, String(error))
      }
    }
  })
}

test('parseEvidence() refuses more than 1 MiB, nine certificates, a long one, and a model that is no text', () => {
  const refused = (change: Partial<typeof evidence>) =>
    assert.throws(() => parseEvidence(encodeEvidence({ ...evidence, ...change })))
  assert.throws(() => parseEvidence(new Uint8Array(2 ** 20 + 1)), /1048576 are the limit/)
  refused({ certificates: Array.from({ length: 9 }, () => bytes(1, 0)) })
  refused({ certificates: [bytes(8193, 0)] })
  refused({ claims: { ...evidence.claims, model: 'a\nb' } })
  refused({ claims: { ...evidence.claims, model: 'x'.repeat(17) } })
})

const parts: TranscriptParts = {
  trustDomain: parseTrustDomain('example.org'),
  nonce: bytes(32, 1),
  csrPublicKey: bytes(91, 2),
  endorsementKey: bytes(91, 3),
  attestationKeyName: bytes(34, 4),
  exported: bytes(32, 5),
}

test('transcript() is the digest that other implementations compute', () => {
  // Computed in another language.
  assert.equal(
    transcript(parts).toHex(),
    '8618f8149a66af28e69f052dc793413e9ed74097261b23e7d1402bedd575a0ae',
  )
})

test('transcript() differs when any part does', () => {
  const changed: Partial<TranscriptParts>[] = [
    { trustDomain: parseTrustDomain('example.com') },
    { nonce: bytes(32, 9) },
    { csrPublicKey: bytes(91, 9) },
    { endorsementKey: bytes(91, 9) },
    { attestationKeyName: bytes(34, 9) },
    { exported: bytes(32, 9) },
  ]
  const all = [{}, ...changed].map((change) => transcript({ ...parts, ...change }).toHex())
  assert.equal(new Set(all).size, 7)
})

test('proofOf() depends on the secret and on the transcript', () => {
  const one = proofOf(bytes(32, 1), bytes(32, 1)).toHex()
  assert.equal(one.length, 64)
  assert.notEqual(proofOf(bytes(32, 2), bytes(32, 1)).toHex(), one)
  assert.notEqual(proofOf(bytes(32, 1), bytes(32, 2)).toHex(), one)
})
