import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { test } from 'node:test'
import { CompactSign, compactVerify } from 'jose'
import { base64Url, utf8Bytes } from '#base/bytes.ts'
import { compactJws, type JwsAlgorithm, jwsAlgorithms } from '#pki/jws.ts'
import { mutated, seeded } from '../../test/support/seeded.ts'
import type { Bundle } from './bundle.ts'
import { encodeJwtSvid, type JwtSvidExpectation, validateJwtSvid } from './jwt-svid.ts'
import { parseSpiffeId } from './spiffe-id.ts'
import type { TrustDomain } from './trust-domain.ts'

interface Key {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

const now = 1767225600
const id = parseSpiffeId('spiffe://td/web')
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const keysByAlgorithm: Record<JwsAlgorithm, Key> = {
  RS256: rsa,
  RS384: rsa,
  RS512: rsa,
  PS256: rsa,
  PS384: rsa,
  PS512: rsa,
  ES256: p256,
  ES384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  ES512: generateKeyPairSync('ec', { namedCurve: 'P-521' }),
}

function bundle(trustDomain: string, keys: Record<string, Key>): Bundle {
  return {
    trustDomain: trustDomain as TrustDomain,
    x509Authorities: [],
    jwtAuthorities: Object.entries(keys).map(([keyId, { publicKey }]) => ({
      keyId,
      publicKey: new Uint8Array(publicKey.export({ format: 'der', type: 'spki' })),
      expiresAtSeconds: 0,
      tainted: false,
    })),
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
  }
}

const own = bundle('td', { a: p256, r: rsa })

const expecting = (...bundles: Bundle[]): JwtSvidExpectation => ({
  audience: 'me',
  bundles: (trustDomain) => bundles.find((b) => b.trustDomain === trustDomain),
  nowSeconds: now,
})

const claims = { sub: id as string, aud: ['me'] as unknown, exp: now + 300, iat: now }

/** A token with any header and claims, signed with ES256 whatever the header says. */
function token(
  header: Record<string, unknown> = {},
  changes: Record<string, unknown> = {},
  key: Key = p256,
): string {
  const part = (value: unknown) => base64Url(utf8Bytes(JSON.stringify(value)))
  const input = `${part({ alg: 'ES256', kid: 'a', typ: 'JWT', ...header })}.${part({ ...claims, ...changes })}`
  const signature = sign('sha256', utf8Bytes(input), {
    key: key.privateKey,
    dsaEncoding: 'ieee-p1363',
  })
  return compactJws(input, signature)
}

function refuses(title: string, reason: string, made: string | (() => string)): void {
  test(title, () => {
    const svid = typeof made === 'string' ? made : made()
    assert.throws(() => validateJwtSvid(svid, expecting(own)), {
      name: 'AssayError',
      code: 'unauthenticated',
      reason,
    })
  })
}

test('C7 validateJwtSvid() gives ID, audience, expiry and claims', () => {
  const svid = validateJwtSvid(token({}, { extra: { x: [1] } }), expecting(own))
  assert.deepEqual(svid, {
    spiffeId: id,
    audience: ['me'],
    expiresAtSeconds: now + 300,
    claims: { ...claims, extra: { x: [1] } },
  })
})

test('C3 encodeJwtSvid() writes alg, kid and typ alone, which jose verifies', async () => {
  const input = encodeJwtSvid({
    keyId: 'a',
    alg: 'ES256',
    subject: id,
    audience: ['me', 'you'],
    issuedAtSeconds: now,
    expiresAtSeconds: now + 300,
    issuer: 'https://issuer',
    jti: 'unique',
  })
  const signature = sign('sha256', utf8Bytes(input), {
    key: p256.privateKey,
    dsaEncoding: 'ieee-p1363',
  })
  const made = compactJws(input, signature)
  const { payload, protectedHeader } = await compactVerify(made, p256.publicKey)
  assert.deepEqual(protectedHeader, { alg: 'ES256', kid: 'a', typ: 'JWT' })
  assert.deepEqual(JSON.parse(new TextDecoder().decode(payload)), {
    sub: id,
    aud: ['me', 'you'],
    exp: now + 300,
    iat: now,
    iss: 'https://issuer',
    jti: 'unique',
  })
  assert.equal(validateJwtSvid(made, expecting(own)).spiffeId, id)
})

test('C8 encodeJwtSvid() refuses no audience and an empty one', () => {
  const content = {
    keyId: 'a',
    alg: 'ES256',
    subject: id,
    issuedAtSeconds: now,
    expiresAtSeconds: now + 1,
  } as const
  assert.throws(() => encodeJwtSvid({ ...content, audience: [] }), RangeError)
  assert.throws(() => encodeJwtSvid({ ...content, audience: ['a', ''] }), RangeError)
  const reversed = { ...content, audience: ['a'], expiresAtSeconds: now }
  assert.throws(() => encodeJwtSvid(reversed), RangeError)
})

for (const alg of Object.keys(jwsAlgorithms) as JwsAlgorithm[]) {
  test(`C4 validateJwtSvid() accepts ${alg} with a key that fits`, async () => {
    const key = keysByAlgorithm[alg]
    const svid = await new CompactSign(utf8Bytes(JSON.stringify(claims)))
      .setProtectedHeader({ alg, kid: 'k', typ: 'JWT' })
      .sign(key.privateKey)
    assert.equal(validateJwtSvid(svid, expecting(bundle('td', { k: key }))).spiffeId, id)
  })
}

for (const alg of ['none', 'HS256', 'EdDSA', 'ES256K', 'es256', '', 5, null, ['ES256']]) {
  refuses(
    `C4 validateJwtSvid() refuses algorithm ${JSON.stringify(alg)}`,
    'token-algorithm-not-allowed',
    token({ alg }),
  )
}

test('C4 validateJwtSvid() judges the algorithm before it asks for a bundle', () => {
  let asked = false
  const expectation = {
    ...expecting(own),
    bundles: () => {
      asked = true
      return own
    },
  }
  assert.throws(() => validateJwtSvid(token({ alg: 'HS256' }), expectation))
  assert.equal(asked, false)
})

refuses('C1 validateJwtSvid() refuses a JSON serialization', 'token-malformed', '{"payload":"e30"}')
refuses('C2 validateJwtSvid() refuses five parts', 'token-malformed', 'a.b.c.d.e')
refuses('C1 validateJwtSvid() refuses an empty token', 'token-malformed', '')
refuses('C1 validateJwtSvid() refuses a token above 16 KiB', 'token-malformed', () =>
  token({}, { filler: 'x'.repeat(16 * 1024) }),
)
refuses('K4 validateJwtSvid() refuses a claim that is there twice', 'token-malformed', () => {
  const [header = '', , signature = ''] = token().split('.')
  const twice = `{"sub":"${id}",${JSON.stringify(claims).slice(1)}`
  return `${header}.${base64Url(utf8Bytes(twice))}.${signature}`
})

test('C5 validateJwtSvid() finds the key of a token without kid', () => {
  assert.equal(validateJwtSvid(token({ kid: undefined }), expecting(own)).spiffeId, id)
  assert.throws(() => validateJwtSvid(token({ kid: undefined }, {}, other), expecting(own)), {
    code: 'unauthenticated',
  })
})

refuses('C5 validateJwtSvid() refuses an unknown kid', 'token-key-unknown', token({ kid: 'x' }))
refuses(
  'C5 validateJwtSvid() refuses a kid that is no string',
  'token-key-unknown',
  token({ kid: 5 }),
)
refuses('D3 validateJwtSvid() tells kids apart by case', 'token-key-unknown', token({ kid: 'A' }))

for (const typ of [undefined, 'JWT', 'JOSE']) {
  test(`C6 validateJwtSvid() accepts type ${typ}`, () => {
    assert.equal(validateJwtSvid(token({ typ }), expecting(own)).spiffeId, id)
  })
}
for (const typ of ['wit+jwt', 'at+jwt', 'jwt', '', null, 1]) {
  refuses(
    `A24, C6 validateJwtSvid() refuses type ${JSON.stringify(typ)}`,
    'token-type-not-allowed',
    token({ typ }),
  )
}
refuses('C3 validateJwtSvid() refuses a critical header', 'token-header-not-understood', () =>
  token({ crit: ['b64'], b64: true }),
)

refuses(
  'C7 validateJwtSvid() refuses no subject',
  'token-subject-invalid',
  token({}, { sub: undefined }),
)
for (const sub of ['', 'web', 'https://td/web', 'spiffe://td/web/', 'spiffe://TD/web', 5]) {
  refuses(
    `C7 validateJwtSvid() refuses subject ${JSON.stringify(sub)}`,
    'token-subject-invalid',
    token({}, { sub }),
  )
}

test('C9 validateJwtSvid() reads an audience that is a string and one among several', () => {
  assert.deepEqual(validateJwtSvid(token({}, { aud: 'me' }), expecting(own)).audience, ['me'])
  const several = token({}, { aud: ['you', 'me'] })
  assert.deepEqual(validateJwtSvid(several, expecting(own)).audience, ['you', 'me'])
})
for (const aud of [undefined, [], null, 5, [5], ['me', null], {}]) {
  refuses(
    `C9 validateJwtSvid() refuses audience ${JSON.stringify(aud)}`,
    'token-audience-missing',
    token({}, { aud }),
  )
}
for (const aud of ['you', ['you'], 'ME', 'me ', ['']]) {
  refuses(
    `C9 validateJwtSvid() refuses audience ${JSON.stringify(aud)}`,
    'token-audience-mismatch',
    token({}, { aud }),
  )
}

refuses(
  'C12 validateJwtSvid() refuses no expiry',
  'token-without-expiry',
  token({}, { exp: undefined }),
)
refuses(
  'C12 validateJwtSvid() refuses an expiry that is text',
  'token-malformed',
  token({}, { exp: '9' }),
)
refuses(
  'C13 validateJwtSvid() refuses what ended five minutes ago',
  'token-expired',
  token({}, { exp: now - 300 }),
)

test('C13 validateJwtSvid() allows a minute of leeway, to the second', () => {
  assert.ok(validateJwtSvid(token({}, { exp: now - 59 }), expecting(own)))
  assert.throws(() => validateJwtSvid(token({}, { exp: now - 60 }), expecting(own)), {
    reason: 'token-expired',
  })
  const strict = { ...expecting(own), leewaySeconds: 0 }
  assert.ok(validateJwtSvid(token({}, { exp: now + 0.5 }), strict))
  assert.throws(() => validateJwtSvid(token({}, { exp: now }), strict), { reason: 'token-expired' })
})

for (const [claim, reason] of [
  ['nbf', 'token-not-yet-valid'],
  ['iat', 'token-issued-in-future'],
] as const) {
  refuses(
    `C14 validateJwtSvid() refuses ${claim} beyond the leeway`,
    reason,
    token({}, { [claim]: now + 61 }),
  )
  refuses(
    `C14 validateJwtSvid() refuses ${claim} that is no number`,
    'token-malformed',
    token({}, { [claim]: 'x' }),
  )
  test(`C14 validateJwtSvid() accepts ${claim} within the leeway, and without it`, () => {
    assert.ok(validateJwtSvid(token({}, { [claim]: now + 60 }), expecting(own)))
    assert.ok(validateJwtSvid(token({}, { [claim]: undefined }), expecting(own)))
  })
}

refuses(
  'C15 validateJwtSvid() refuses ES256 with the kid of an RSA key',
  'token-key-mismatch',
  token({ kid: 'r' }),
)
refuses(
  'C15 validateJwtSvid() refuses RS256 with the kid of an EC key',
  'token-key-mismatch',
  token({ alg: 'RS256' }),
)
refuses(
  'C15 validateJwtSvid() refuses another curve',
  'token-key-mismatch',
  token({ alg: 'ES384' }),
)
refuses('A23 validateJwtSvid() refuses a signature by another key', 'token-signature-invalid', () =>
  token({}, {}, other),
)
refuses(
  'C22 validateJwtSvid() refuses a trust domain without a bundle',
  'trust-domain-unknown',
  () => token({}, { sub: 'spiffe://unknown/web' }),
)

test('C20 validateJwtSvid() refuses a trust domain without JWT authorities', () => {
  assert.throws(() => validateJwtSvid(token(), expecting(bundle('td', {}))), {
    reason: 'trust-domain-without-jwt',
  })
})

test('C22 validateJwtSvid() takes the key of the trust domain of the subject, whatever others have', () => {
  const foreign = bundle('foreign', { a: other })
  assert.throws(() => validateJwtSvid(token({}, {}, other), expecting(own, foreign)), {
    reason: 'token-signature-invalid',
  })
  const theirs = token({}, { sub: 'spiffe://foreign/x' }, other)
  assert.equal(validateJwtSvid(theirs, expecting(own, foreign)).spiffeId, 'spiffe://foreign/x')
  const swapped = { ...expecting(own), bundles: () => foreign }
  assert.throws(() => validateJwtSvid(token({}, {}, other), swapped), {
    reason: 'trust-domain-unknown',
  })
})

test('C21 validateJwtSvid() accepts the same token twice', () => {
  const svid = token({}, { jti: 'x' })
  assert.deepEqual(validateJwtSvid(svid, expecting(own)), validateJwtSvid(svid, expecting(own)))
})

test('validateJwtSvid() refuses a key of the bundle that cannot be read', () => {
  const broken = {
    ...own,
    jwtAuthorities: own.jwtAuthorities.map((key) => ({ ...key, publicKey: Uint8Array.of(1) })),
  }
  assert.throws(() => validateJwtSvid(token(), expecting(broken)), { reason: 'token-key-mismatch' })
})

test('A23 validateJwtSvid() accepts no truncated or changed token, and throws only AssayError', () => {
  const random = seeded(8)
  const svid = token()
  for (let length = 0; length < svid.length; length++) {
    assert.throws(() => validateJwtSvid(svid.slice(0, length), expecting(own)), {
      name: 'AssayError',
    })
  }
  for (let i = 0; i < 500; i++) {
    const changed = new TextDecoder('latin1').decode(mutated(random, utf8Bytes(svid)))
    if (changed === svid) continue
    assert.throws(() => validateJwtSvid(changed, expecting(own)), { name: 'AssayError' })
  }
})
