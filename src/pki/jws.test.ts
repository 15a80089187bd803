import assert from 'node:assert/strict'
import { constants, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { test } from 'node:test'
import { CompactSign } from 'jose'
import { base64Url, utf8Bytes } from '#base/bytes.ts'
import { mutated, seeded } from '../../test/support/seeded.ts'
import {
  compactJws,
  isJwsAlgorithm,
  type JwsAlgorithm,
  jwsAlgorithms,
  parseCompactJws,
  signingInput,
  verifyJws,
} from './jws.ts'

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
const p521 = generateKeyPairSync('ec', { namedCurve: 'P-521' })

const keyPairs: Record<JwsAlgorithm, { publicKey: KeyObject; privateKey: KeyObject }> = {
  RS256: rsa,
  RS384: rsa,
  RS512: rsa,
  PS256: rsa,
  PS384: rsa,
  PS512: rsa,
  ES256: p256,
  ES384: p384,
  ES512: p521,
}
const algorithms = Object.keys(jwsAlgorithms) as JwsAlgorithm[]
const claims = { sub: 'spiffe://td/a', aud: ['b'], exp: 1 }

for (const algorithm of algorithms) {
  test(`verifyJws() accepts ${algorithm} from another implementation, and refuses a changed token`, async () => {
    const { publicKey, privateKey } = keyPairs[algorithm]
    const token = await new CompactSign(utf8Bytes(JSON.stringify(claims)))
      .setProtectedHeader({ alg: algorithm })
      .sign(privateKey)
    const jws = parseCompactJws(token)
    assert.deepEqual(jws.header, { alg: algorithm })
    assert.deepEqual(jws.claims, claims)
    verifyJws(jws, publicKey, algorithm)
    const signature = Uint8Array.from(jws.signature)
    signature[5] = (signature[5] ?? 0) ^ 1
    for (const changed of [
      { ...jws, signature },
      { ...jws, signature: signature.subarray(1) },
      { ...jws, signingInput: utf8Bytes(signingInput({ alg: algorithm }, {})) },
    ]) {
      assert.throws(() => verifyJws(changed, publicKey, algorithm), {
        code: 'unauthenticated',
        reason: 'token-signature-invalid',
      })
    }
  })

  test(`verifyJws() refuses ${algorithm} with a key of another type or curve`, () => {
    const jws = parseCompactJws(compactJws(signingInput({ alg: algorithm }, {}), utf8Bytes('x')))
    for (const other of [rsa, p256, p384, p521]) {
      if (other === keyPairs[algorithm]) continue
      assert.throws(() => verifyJws(jws, other.publicKey, algorithm), {
        code: 'unauthenticated',
        reason: 'token-key-mismatch',
      })
    }
  })
}

test('verifyJws() refuses DER where JOSE wants r and s, and another salt length', () => {
  const input = signingInput({}, {})
  const message = utf8Bytes(input)
  const der = parseCompactJws(compactJws(input, sign('sha256', message, p256.privateKey)))
  assert.throws(() => verifyJws(der, p256.publicKey, 'ES256'), {
    reason: 'token-signature-invalid',
  })
  const salted = sign('sha256', message, {
    key: rsa.privateKey,
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: 20,
  })
  const pss = parseCompactJws(compactJws(input, salted))
  assert.throws(() => verifyJws(pss, rsa.publicKey, 'PS256'), { reason: 'token-signature-invalid' })
})

test('verifyJws() refuses an RSA key of 1024 bits', () => {
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 })
  const input = signingInput({}, {})
  const signature = sign('sha256', utf8Bytes(input), weak.privateKey)
  assert.throws(
    () => verifyJws(parseCompactJws(compactJws(input, signature)), weak.publicKey, 'RS256'),
    {
      reason: 'token-key-mismatch',
    },
  )
})

test('isJwsAlgorithm() knows nine names and no inherited ones', () => {
  assert.equal(algorithms.filter(isJwsAlgorithm).length, 9)
  for (const name of [
    'none',
    'HS256',
    'EdDSA',
    'ES256K',
    'es256',
    'toString',
    '',
    null,
    undefined,
  ]) {
    assert.equal(isJwsAlgorithm(name), false)
  }
})

const part = (json: string): string => base64Url(utf8Bytes(json))

for (const [name, token] of [
  ['two parts', `${part('{}')}.${part('{}')}`],
  ['five parts', 'a.b.c.d.e'],
  ['an empty signature', `${part('{}')}.${part('{}')}.`],
  ['a JSON serialization', '{"payload":"e30","protected":"e30","signature":"AA"}'],
  ['padding', `${part('{}')}.${part('{}')}.AA==`],
  ['standard base64', `${part('{}')}.${part('{}')}.+/+/`],
  ['whitespace', `${part('{}')}.${part('{}')}. AAAA`],
  ['a header that is no object', `${part('[]')}.${part('{}')}.AAAA`],
  ['a payload that is no JSON', `${part('{}')}.${part('x')}.AAAA`],
  [
    'a payload that is no UTF-8',
    `${part('{}')}.${base64Url(Uint8Array.of(0x22, 0xff, 0x22))}.AAAA`,
  ],
  ['a repeated header', `${part('{"alg":"ES256","alg":"none"}')}.${part('{}')}.AAAA`],
  ['a repeated claim', `${part('{}')}.${part('{"sub":"a","sub":"b"}')}.AAAA`],
  ['nothing', ''],
] as const) {
  test(`parseCompactJws() refuses ${name}`, () => {
    assert.throws(() => parseCompactJws(token), SyntaxError)
  })
}

test('parseCompactJws() refuses 16 KiB and a character', () => {
  const filler = base64Url(new Uint8Array(12_000))
  const token = `${part('{}')}.${part('{}')}.${filler}`
  assert.ok(parseCompactJws(token))
  assert.throws(() => parseCompactJws(token + 'A'.repeat(16 * 1024)), /longer than 16384/)
})

test('parseCompactJws() refuses truncations before the signature, and no mutation verifies', () => {
  const input = signingInput({ alg: 'ES256', kid: 'a' }, claims)
  const signature = sign('sha256', utf8Bytes(input), {
    key: p256.privateKey,
    dsaEncoding: 'ieee-p1363',
  })
  const token = compactJws(input, signature)
  for (let length = 0; length <= input.length + 1; length++) {
    assert.throws(() => parseCompactJws(token.slice(0, length)), SyntaxError)
  }
  const random = seeded(3)
  for (let i = 0; i < 300; i++) {
    const changed = new TextDecoder('latin1').decode(mutated(random, utf8Bytes(token)))
    if (changed === token) continue
    assert.throws(() => verifyJws(parseCompactJws(changed), p256.publicKey, 'ES256'))
  }
})
