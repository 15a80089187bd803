import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { publicKeyToJwk } from '#pki/jwk.ts'
import { compactJws } from '#pki/jws.ts'
import { generateEcKeyPair, generateKeyPair } from '#pki/private-key.ts'
import { newAuthority, newSvid, nowSeconds } from '../../test/support/certificates.ts'
import { mutated, seeded } from '../../test/support/seeded.ts'
import type { Bundle } from './bundle.ts'
import {
  encodeBundle,
  encodeBundleMap,
  encodeJwks,
  parseBundle,
  parseBundleMap,
  parseJwks,
} from './bundle-json.ts'
import { encodeJwtSvid, validateJwtSvid } from './jwt-svid.ts'
import { parseSpiffeId } from './spiffe-id.ts'
import { parseTrustDomain } from './trust-domain.ts'
import { verifyX509Svid } from './x509-svid.ts'

const td = parseTrustDomain('td')
const root = newAuthority('td')
const second = newAuthority('td', { key: await generateKeyPair('rsa-2048') })
const jwtKey = generateEcKeyPair('ec-p256').publicKey
const bundle: Bundle = {
  trustDomain: td,
  x509Authorities: [
    { certificate: root.certificate, tainted: false },
    { certificate: second.certificate, tainted: false },
  ],
  jwtAuthorities: [{ keyId: 'one', publicKey: jwtKey, expiresAtSeconds: 0, tainted: false }],
  refreshHintSeconds: 300,
  sequenceNumber: 42n,
}

type Members = Record<string, unknown>
const document = (members: Members): string => JSON.stringify({ keys: [], ...members })
const withKeys = (...keys: unknown[]): string => document({ keys })

const x509Key: Members = {
  use: 'x509-svid',
  ...publicKeyToJwk(parseCertificate(root.certificate).publicKey),
  x5c: [root.certificate.toBase64()],
}
const jwtJwk: Members = { use: 'jwt-svid', kid: 'one', ...publicKeyToJwk(jwtKey) }

/** How many authorities a document of these keys has, and why keys were passed over. */
function counts(...keys: unknown[]): { x509: number; jwt: number; ignored: string[] } {
  const ignored: string[] = []
  const parsed = parseBundle(withKeys(...keys), td, {
    onIgnoredKey: (index, why) => ignored.push(`${index}: ${why}`),
  })
  return { x509: parsed.x509Authorities.length, jwt: parsed.jwtAuthorities.length, ignored }
}

/** The key is passed over, and the good ones beside it are not. */
function ignores(title: string, key: unknown): void {
  test(title, () => {
    const { x509, jwt, ignored } = counts(x509Key, key, jwtJwk)
    assert.deepEqual([x509, jwt, ignored.length], [1, 1, 1])
    assert.match(ignored[0] ?? '', /^1: ./)
  })
}

test('G1 parseBundle() reads back what encodeBundle() writes', () => {
  const parsed = parseBundle(encodeBundle(bundle), td)
  assert.deepEqual(parsed, bundle)
  assert.deepEqual(parseBundle(utf8Bytes(encodeBundle(bundle)), td), bundle)
})

test('B26, B27, B28, G3, G6, G14 encodeBundle() writes use, key and one certificate in standard base64, and no kid', () => {
  const { keys, ...rest } = JSON.parse(encodeBundle(bundle))
  assert.deepEqual(Object.keys(keys[0]), ['use', 'kty', 'crv', 'x', 'y', 'x5c'])
  assert.deepEqual(keys[0], x509Key)
  assert.deepEqual(Object.keys(keys[1]), ['use', 'kty', 'n', 'e', 'x5c'])
  assert.equal(keys[1].x5c[0], second.certificate.toBase64())
  assert.deepEqual(rest, { spiffe_sequence: 42, spiffe_refresh_hint: 300 })
})

test('C18 encodeBundle() writes use and kid of JWT authorities', () => {
  assert.deepEqual(JSON.parse(encodeBundle(bundle)).keys[2], jwtJwk)
})

test('G7 encodeBundle() leaves a refresh hint out that is not stated', () => {
  const text = encodeBundle({ ...bundle, refreshHintSeconds: 0 })
  assert.equal('spiffe_refresh_hint' in JSON.parse(text), false)
  assert.equal(parseBundle(text, td).refreshHintSeconds, 0)
})

test('G2 parseBundle() needs keys alone, and passes over members it does not know', () => {
  assert.deepEqual(parseBundle('{"keys":[]}', td), {
    trustDomain: td,
    x509Authorities: [],
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 0n,
  })
  assert.equal(counts({ ...x509Key, kid: 'x', custom: 1 }).x509, 1)
  assert.ok(parseBundle(document({ extra: { keys: 1 } }), td))
})

for (const sequence of [2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 64n - 1n]) {
  test(`G5 parseBundle() and encodeBundle() keep sequence number ${sequence}`, () => {
    const text = encodeBundle({ ...bundle, sequenceNumber: sequence })
    assert.match(text, new RegExp(`"spiffe_sequence": ${sequence}\\b`))
    assert.equal(parseBundle(text, td).sequenceNumber, sequence)
  })
}

for (const [title, text] of [
  ['G4 parseBundle() refuses a sequence number that is text', document({ spiffe_sequence: '1' })],
  [
    'G4 parseBundle() refuses a sequence number with a fraction',
    document({ spiffe_sequence: 1.5 }),
  ],
  ['G4 parseBundle() refuses a negative sequence number', document({ spiffe_sequence: -1 })],
  [
    'G5 parseBundle() refuses a sequence number above 64 bits',
    '{"keys":[],"spiffe_sequence":18446744073709551616}',
  ],
  ['G7 parseBundle() refuses a refresh hint that is text', document({ spiffe_refresh_hint: '5m' })],
  ['G7 parseBundle() refuses a negative refresh hint', document({ spiffe_refresh_hint: -1 })],
  [
    'G7 parseBundle() refuses a refresh hint of a million years',
    document({ spiffe_refresh_hint: 1e14 }),
  ],
  ['G8 parseBundle() refuses a document without keys', '{}'],
  ['G8 parseBundle() refuses keys that are no array', document({ keys: {} })],
  ['G8 parseBundle() refuses keys that are null', document({ keys: null })],
  ['G1 parseBundle() refuses an array', '[]'],
  ['G1 parseBundle() refuses null', 'null'],
  ['G1 parseBundle() refuses what is no JSON', '{"keys":['],
  ['G1 parseBundle() refuses nothing', ''],
  ['K4 parseBundle() refuses keys that are there twice', '{"keys":[],"keys":[]}'],
  [
    'K4 parseBundle() refuses a member of a key that is there twice',
    '{"keys":[{"use":"jwt-svid","use":"x"}]}',
  ],
  [
    'G8 parseBundle() refuses more than 1024 keys',
    withKeys(...Array.from({ length: 1025 }, () => 1)),
  ],
  ['G1 parseBundle() refuses more than 4 MiB', ' '.repeat(4 * 2 ** 20 + 1)],
] as const) {
  test(title, () => {
    assert.throws(() => parseBundle(text, td), { name: 'SyntaxError', message: /invalid bundle/ })
  })
}

test('G1 parseBundle() refuses bytes that are no UTF-8', () => {
  assert.throws(() => parseBundle(Uint8Array.of(0x22, 0xff, 0x22), td), SyntaxError)
})

ignores('G9 parseBundle() passes over an unknown key type', { ...x509Key, kty: 'XYZ' })
ignores('G9 parseBundle() passes over an unknown key type of a JWT key', {
  ...jwtJwk,
  kid: 'b',
  kty: 'AKP',
})
ignores('G10 parseBundle() passes over a key without type', { ...x509Key, kty: undefined })
ignores('G11 parseBundle() passes over a use in other case', { ...x509Key, use: 'X509-SVID' })
ignores('G12 parseBundle() passes over a missing use', { ...x509Key, use: undefined })
ignores('G12 parseBundle() passes over an unknown use', { ...jwtJwk, kid: 'b', use: 'sig' })
ignores('D28 parseBundle() passes over WIT keys', { ...jwtJwk, kid: 'b', use: 'wit-svid' })
ignores('G12 parseBundle() passes over what is no object', 'key')
ignores('B30 parseBundle() passes over an entry without x5c', { ...x509Key, x5c: undefined })
ignores('B30 parseBundle() passes over an entry with empty x5c', { ...x509Key, x5c: [] })
ignores('B30 parseBundle() passes over an x5c that is no array', { ...x509Key, x5c: 'AAAA' })
ignores('B30 parseBundle() passes over a certificate that cannot be read', {
  ...x509Key,
  x5c: ['AAAA'],
})
ignores('B28 parseBundle() passes over base64url in x5c', {
  ...x509Key,
  x5c: [root.certificate.toBase64({ alphabet: 'base64url' }).replace(/^..../, '-_-_')],
})
ignores('B28 parseBundle() passes over a certificate of another key than the entry states', {
  ...x509Key,
  x5c: [second.certificate.toBase64()],
})
ignores('C18 parseBundle() passes over a JWT key without kid', { ...jwtJwk, kid: undefined })
ignores('C18 parseBundle() passes over a JWT key with an empty kid', { ...jwtJwk, kid: '' })
ignores('C18 parseBundle() passes over a JWT key off its curve', {
  ...jwtJwk,
  kid: 'b',
  y: jwtJwk['x'],
})
ignores('C4 parseBundle() passes over a symmetric key', {
  use: 'jwt-svid',
  kid: 'b',
  kty: 'oct',
  k: 'AAAA',
})

test('C18 parseBundle() takes the first of two JWT keys with one kid', () => {
  const other = { ...jwtJwk, ...publicKeyToJwk(generateEcKeyPair('ec-p256').publicKey) }
  const parsed = parseBundle(withKeys(jwtJwk, other), td)
  assert.deepEqual(parsed.jwtAuthorities, bundle.jwtAuthorities)
})

test('B31 parseBundle() takes the first certificate of x5c and not the others', () => {
  const chain = [root.certificate, second.certificate].map((der) => der.toBase64())
  const parsed = parseBundle(withKeys({ ...x509Key, x5c: chain }), td)
  assert.deepEqual(parsed.x509Authorities, bundle.x509Authorities.slice(0, 1))
})

test('B30 parseBundle() takes an entry that states no numbers of its key', () => {
  const { use, kty, x5c } = x509Key
  assert.equal(counts({ use, kty, x5c }).x509, 1)
})

test('B26 parseBundle() takes an Ed25519 authority', () => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
  const certificate = newSvid(root, 'spiffe://td/x', {
    key: { publicKey: spki, privateKey },
  }).certificate
  const ed25519: Bundle = { ...bundle, x509Authorities: [{ certificate, tainted: false }] }
  assert.deepEqual(parseBundle(encodeBundle(ed25519), td), ed25519)
})

test('G13 a bundle that turns out empty vouches for nobody', () => {
  const empty = parseBundle(withKeys({ ...x509Key, use: 'new-svid' }), td)
  const svid = newSvid(root, 'spiffe://td/a')
  const presentation = { certificates: [svid.certificate], nowSeconds }
  assert.throws(() => verifyX509Svid({ ...presentation, bundles: () => empty }), {
    reason: 'trust-domain-without-x509',
  })
  const trusted = parseBundle(withKeys(x509Key), td)
  assert.ok(verifyX509Svid({ ...presentation, bundles: () => trusted }))
})

test('K10 a key serves the use it is published for, and no other', () => {
  const asJwt = parseBundle(
    withKeys({ ...x509Key, use: 'jwt-svid', kid: 'one' }, { ...jwtJwk, use: 'x509-svid' }),
    td,
  )
  assert.equal(asJwt.x509Authorities.length, 0)
  const svid = newSvid(root, 'spiffe://td/a')
  assert.throws(
    () => verifyX509Svid({ certificates: [svid.certificate], nowSeconds, bundles: () => asJwt }),
    { code: 'unauthenticated' },
  )
})

test('C19 validateJwtSvid() does not use X.509 keys of a bundle', () => {
  const input = encodeJwtSvid({
    keyId: 'root',
    alg: 'ES256',
    subject: parseSpiffeId('spiffe://td/a'),
    audience: ['a'],
    issuedAtSeconds: nowSeconds,
    expiresAtSeconds: nowSeconds + 60,
  })
  const key = { key: root.key.privateKey, dsaEncoding: 'ieee-p1363' } as const
  const token = compactJws(input, sign('sha256', utf8Bytes(input), key))
  const validate = (...keys: Members[]) => {
    const published = parseBundle(withKeys(...keys), td)
    return validateJwtSvid(token, { audience: 'a', bundles: () => published, nowSeconds })
  }
  assert.throws(() => validate({ ...x509Key, kid: 'root' }), { reason: 'trust-domain-without-jwt' })
  assert.throws(() => validate({ ...x509Key, kid: 'root' }, jwtJwk), {
    reason: 'token-key-unknown',
  })
  assert.ok(validate({ ...x509Key, use: 'jwt-svid', kid: 'root' }))
})

test('F28, F29 encodeJwks() writes kid and key alone, and parseJwks() reads them back', () => {
  const text = encodeJwks(bundle.jwtAuthorities)
  assert.deepEqual(JSON.parse(text), { keys: [{ kid: 'one', ...publicKeyToJwk(jwtKey) }] })
  assert.deepEqual(parseJwks(text), bundle.jwtAuthorities)
  assert.deepEqual(parseJwks(encodeJwks([])), [])
})

test('F21 parseJwks() passes over keys of another use, and refuses what is no JWK Set', () => {
  assert.deepEqual(parseJwks(encodeBundle(bundle)), bundle.jwtAuthorities)
  assert.deepEqual(parseJwks(withKeys({ ...jwtJwk, use: 'wit-svid' })), [])
  for (const text of ['', '{}', '[]', '{"keys":[],"keys":[]}']) {
    assert.throws(() => parseJwks(text), SyntaxError)
  }
})

const other: Bundle = {
  ...bundle,
  trustDomain: parseTrustDomain('other'),
  sequenceNumber: 2n ** 60n,
}

test('G16, G17, G19 parseBundleMap() reads back what encodeBundleMap() writes, without refresh hints', () => {
  const text = encodeBundleMap([bundle, other])
  assert.equal(text.includes('spiffe_refresh_hint'), false)
  const parsed = parseBundleMap(text)
  assert.deepEqual([...parsed.keys()], ['td', 'other'])
  assert.deepEqual(parsed.get(td), { ...bundle, refreshHintSeconds: 0 })
  assert.equal(parsed.get(other.trustDomain)?.sequenceNumber, 2n ** 60n)
  assert.throws(() => encodeBundleMap([bundle, bundle]), RangeError)
})

test('G16 parseBundleMap() takes an empty map and refuses one without trust domains', () => {
  assert.equal(parseBundleMap('{"trust_domains":{}}').size, 0)
  for (const text of ['{}', '{"trust_domains":[]}', '{"trust_domains":null}', '[]']) {
    assert.throws(() => parseBundleMap(text), SyntaxError)
  }
})

test('G18 parseBundleMap() refuses a trust domain that is there twice', () => {
  const twice = `{"trust_domains":{"td":${document({})},"td":${document({})}}}`
  assert.throws(() => parseBundleMap(twice), /"td" is there twice/)
})

test('G20 parseBundleMap() drops refresh hints inside', () => {
  const text = `{"trust_domains":{"td":${document({ spiffe_refresh_hint: 1 })}}}`
  assert.equal(parseBundleMap(text).get(td)?.refreshHintSeconds, 0)
})

test('G22 parseBundleMap() refuses a map of which one bundle is broken', () => {
  for (const broken of ['{"td":{}}', '{"TD":{"keys":[]}}', '{"td":1}']) {
    assert.throws(() => parseBundleMap(`{"trust_domains":${broken}}`), SyntaxError)
  }
})

test('parseBundle() refuses every truncation, and mutations throw nothing but SyntaxError', () => {
  const text = encodeBundle(bundle)
  for (let length = 0; length < text.length - 1; length++) {
    assert.throws(() => parseBundle(text.slice(0, length), td), SyntaxError)
  }
  const random = seeded(9)
  for (let i = 0; i < 500; i++) {
    try {
      parseBundle(mutated(random, utf8Bytes(text)), td)
    } catch (error) {
      assert.ok(error instanceof SyntaxError, String(error))
    }
  }
})
