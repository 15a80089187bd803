import 'reflect-metadata'
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, X509Certificate as NodeCertificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import * as peculiar from '@peculiar/x509'
import { decodeProtectedHeader, importSPKI, jwtVerify } from 'jose'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { defaultCaSubject } from '#issuance/ca-certificate.ts'
import { type Certificate, parseCertificate, subjectKeyId } from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import { encodePem } from '#pki/pem.ts'
import { generateKeyPair } from '#pki/private-key.ts'
import { type SpiffeId, spiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import {
  hour,
  newMemoryKeyManager,
  openAuthorities,
  seconds,
  trustDomain,
} from '../../../test/support/authorities.ts'
import type { KeyType } from '../plugin/key-manager/key-manager.ts'
import { issueRootCertificate } from './authority-certificate.ts'
import type { IssuedX509Svid } from './certificate-authority.ts'
import { IssueTime } from './issue-time.ts'
import { Issuer } from './issuer.ts'
import { newX509Signer, type X509Signer } from './signer.ts'

const workload = spiffeId(trustDomain, '/shop/web')
const agent = spiffeId(trustDomain, '/spire/agent/tpm/00ff')

const newPublicKey = async (): Promise<Uint8Array> => (await generateKeyPair('ec-p256')).publicKey

async function rootOf({ bundle }: Awaited<ReturnType<typeof openAuthorities>>) {
  const [authority] = (await bundle()).x509Authorities
  assert.ok(authority)
  return parseCertificate(authority.certificate)
}

function leafOf(svid: IssuedX509Svid): Certificate {
  assert.equal(svid.certificates.length, 1, 'a self-signed root is not in the chain')
  const [leaf] = svid.certificates
  assert.ok(leaf)
  return parseCertificate(leaf)
}

/** OID, critical or not, and value in hex, in the order of the certificate. */
const extensions = ({ extensions: list }: Certificate): (readonly [string, boolean, string])[] =>
  list.map(({ oid, critical, value }) => [oid, critical, value.toHex()])

const hexText = (text: string): string => new TextEncoder().encode(text).toHex()
const lengthHex = (hex: string): string => (hex.length / 2).toString(16).padStart(2, '0')
const uriName = (uri: string): string => `86${lengthHex(hexText(uri))}${hexText(uri)}`
const dnsName = (name: string): string => `82${lengthHex(hexText(name))}${hexText(name)}`
const sequenceOf = (hex: string): string => `30${lengthHex(hex)}${hex}`

function leafExtensions(leaf: Certificate, root: Certificate, names: string) {
  return [
    ['2.5.29.15', true, '030203a8'],
    ['2.5.29.37', false, '301406082b0601050507030106082b06010505070302'],
    ['2.5.29.19', true, '3000'],
    ['2.5.29.14', false, `0414${subjectKeyId(leaf.publicKey).toHex()}`],
    ['2.5.29.35', false, `30168014${root.subjectKeyId?.toHex()}`],
    ['2.5.29.17', false, sequenceOf(names)],
  ]
}

test('a root has the URI of the trust domain and signs only (A20, A21, A22, B1, B7, B8, B9, B11, B14, B15)', async () => {
  const authorities = await openAuthorities()
  const root = await rootOf(authorities)
  const now = authorities.nowSeconds()
  assert.deepEqual(extensions(root), [
    ['2.5.29.15', true, '03020106'],
    ['2.5.29.19', true, '30030101ff'],
    ['2.5.29.14', false, `0414${subjectKeyId(root.publicKey).toHex()}`],
    ['2.5.29.17', false, sequenceOf(uriName('spiffe://example.org'))],
  ])
  assert.equal(root.version, 3)
  assert.equal(root.subjectText, `C=US, O=SPIFFE, serialNumber=${root.serialNumber}`)
  assert.deepEqual(root.issuer, root.subject)
  assert.equal(root.notBeforeSeconds, now - 10)
  assert.equal(root.notAfterSeconds, now + 24 * hour)
  const node = new NodeCertificate(root.raw)
  assert.ok(node.ca && node.verify(node.publicKey))
})

test('issueX509Svid() gives a workload exactly its profile (B1, B4, B11, B14, B16, B17, B18, B19, B20)', async () => {
  const authorities = await openAuthorities()
  const root = await rootOf(authorities)
  const publicKey = await newPublicKey()
  const svid = await authorities.manager.certificateAuthority.issueX509Svid({
    spiffeId: workload,
    publicKey,
    dnsNames: ['web.example.org', 'a.example.org', '*.b.example.org'],
    ttlSeconds: 0,
  })
  const leaf = leafOf(svid)
  const names =
    dnsName('web.example.org') +
    dnsName('a.example.org') +
    dnsName('*.b.example.org') +
    uriName('spiffe://example.org/shop/web')
  assert.deepEqual(extensions(leaf), leafExtensions(leaf, root, names))
  assert.equal(leaf.version, 3)
  assert.equal(leaf.subjectText, 'C=US, O=SPIRE, CN=web.example.org')
  assert.deepEqual(leaf.issuer, root.subject)
  assert.deepEqual(leaf.publicKey, publicKey)
  assert.equal(leaf.serialNumber, svid.serialNumber)
  assert.equal(leaf.notBeforeSeconds, authorities.nowSeconds() - 10)
  assert.equal(leaf.notAfterSeconds, authorities.nowSeconds() + hour)
  assert.equal(svid.expiresAtSeconds, leaf.notAfterSeconds)
})

test('issueX509Svid() gives an agent its profile, its own TTL and no DNS names (B1, B11, B14)', async () => {
  const authorities = await openAuthorities()
  const { certificateAuthority } = authorities.manager
  const publicKey = await newPublicKey()
  const request = { spiffeId: agent, publicKey, ttlSeconds: 0 }
  const leaf = leafOf(await certificateAuthority.issueX509Svid(request))
  assert.deepEqual(
    extensions(leaf),
    leafExtensions(leaf, await rootOf(authorities), uriName(agent)),
  )
  assert.equal(leaf.subjectText, 'C=US, O=SPIRE')
  assert.equal(leaf.notAfterSeconds, authorities.nowSeconds() + 2 * hour)
  await assert.rejects(
    certificateAuthority.issueX509Svid({ ...request, dnsNames: ['a.example.org'] }),
    refused(/kind agent has no DNS names/),
  )
})

test('issueServerX509Svid() gives the server its profile, and issueX509Svid() refuses its ID', async () => {
  const authorities = await openAuthorities()
  const { certificateAuthority } = authorities.manager
  const publicKey = await newPublicKey()
  const leaf = leafOf(await certificateAuthority.issueServerX509Svid(publicKey))
  const server = spiffeId(trustDomain, '/spire/server')
  assert.deepEqual(
    extensions(leaf),
    leafExtensions(leaf, await rootOf(authorities), uriName(server)),
  )
  await assert.rejects(
    certificateAuthority.issueX509Svid({ spiffeId: server, publicKey, ttlSeconds: 0 }),
    refused(/the server makes its own/),
  )
})

const caKeyTypes: readonly KeyType[] = ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096']
for (const caKeyType of caKeyTypes) {
  test(`a chain by ${caKeyType} is verified by OpenSSL, Node, @peculiar/x509 and verifyChain()`, async () => {
    const authorities = await openAuthorities({ caKeyType })
    const root = await rootOf(authorities)
    for (const publicKey of leafPublicKeys()) {
      const leaf = leafOf(
        await authorities.manager.certificateAuthority.issueX509Svid({
          spiffeId: workload,
          publicKey,
          ttlSeconds: 0,
        }),
      )
      verifyChain({
        leaf,
        intermediates: [],
        roots: [root],
        nowSeconds: authorities.nowSeconds(),
        purpose: '1.3.6.1.5.5.7.3.2',
      })
      const nodeRoot = new NodeCertificate(root.raw)
      const nodeLeaf = new NodeCertificate(leaf.raw)
      assert.ok(nodeLeaf.checkIssued(nodeRoot) && nodeLeaf.verify(nodeRoot.publicKey))
      assert.equal(nodeLeaf.subjectAltName, `URI:${workload}`)
      const independent = new peculiar.X509Certificate(Uint8Array.from(leaf.raw))
      const signer = new peculiar.X509Certificate(Uint8Array.from(root.raw))
      assert.ok(await independent.verify({ publicKey: signer.publicKey, signatureOnly: true }))
      assert.equal(independent.getExtension(peculiar.BasicConstraintsExtension)?.ca, false)
      assert.equal(
        independent.getExtension(peculiar.KeyUsagesExtension)?.usages,
        peculiar.KeyUsageFlags.digitalSignature |
          peculiar.KeyUsageFlags.keyEncipherment |
          peculiar.KeyUsageFlags.keyAgreement,
      )
      for (const purpose of ['sslserver', 'sslclient']) {
        assert.match(opensslVerify(leaf, root, { purpose, at: authorities.nowSeconds() }), /OK/)
      }
    }
  })
}

test('a changed byte of the SPIFFE ID or the public key breaks the signature (A23)', async () => {
  const authorities = await openAuthorities()
  const root = await rootOf(authorities)
  const publicKey = await newPublicKey()
  const issued = await authorities.manager.certificateAuthority.issueX509Svid({
    spiffeId: workload,
    publicKey,
    ttlSeconds: 0,
  })
  const { raw } = leafOf(issued)
  const hex = raw.toHex()
  for (const part of [hexText(workload), publicKey.toHex()]) {
    const at = hex.indexOf(part) / 2 + part.length / 2 - 1
    const changed = Uint8Array.from(raw)
    changed[at] = (changed[at] ?? 0) ^ 1
    const leaf = parseCertificate(changed)
    const chain = { leaf, intermediates: [], roots: [root], nowSeconds: authorities.nowSeconds() }
    assert.throws(() => verifyChain(chain), { reason: 'signature-invalid' })
  }
})

const longest = spiffeId(trustDomain, `/${'a'.repeat(2048 - 'spiffe://example.org/'.length)}`)

test('issueX509Svid() takes an ID of 2048 bytes (A16)', async () => {
  const authorities = await openAuthorities()
  const { certificateAuthority } = authorities.manager
  const publicKey = await newPublicKey()
  assert.equal(longest.length, 2048)
  const svid = await certificateAuthority.issueX509Svid({
    spiffeId: longest,
    publicKey,
    ttlSeconds: 0,
  })
  assert.deepEqual(leafOf(svid).uris, [longest])
  const jwt = { spiffeId: longest, audience: ['a'], ttlSeconds: 0, includeJti: false }
  await certificateAuthority.issueJwtSvid(jwt)
})

const notLeaves: readonly (readonly [string, SpiffeId])[] = [
  ['no path (B5)', spiffeId(trustDomain, '')],
  ['another trust domain', spiffeId(parseTrustDomain('other.org'), '/web')],
  [
    'a trust domain that only begins like ours',
    spiffeId(parseTrustDomain('example.organic'), '/w'),
  ],
  ['a reserved path', spiffeId(trustDomain, '/spire/else')],
  ['the reserved path itself', spiffeId(trustDomain, '/spire')],
  ['an agent path without a name', spiffeId(trustDomain, '/spire/agent')],
  ['more than 2048 bytes (A17)', `${longest}a` as SpiffeId],
]
for (const [what, id] of notLeaves) {
  test(`issueX509Svid() and issueJwtSvid() refuse an ID with ${what}`, async () => {
    const { manager } = await openAuthorities()
    const { certificateAuthority } = manager
    const publicKey = await newPublicKey()
    await assert.rejects(
      certificateAuthority.issueX509Svid({ spiffeId: id, publicKey, ttlSeconds: 0 }),
      refused(/cannot issue an? X.509-SVID/),
    )
    await assert.rejects(
      certificateAuthority.issueJwtSvid({
        spiffeId: id,
        audience: ['a'],
        ttlSeconds: 0,
        includeJti: false,
      }),
      refused(/cannot issue a JWT-SVID/),
    )
  })
}

test('issueX509Svid() takes a workload ID that begins like the reserved path', async () => {
  const { manager } = await openAuthorities()
  const id = spiffeId(trustDomain, '/spires/web')
  const publicKey = await newPublicKey()
  const request = { spiffeId: id, publicKey, ttlSeconds: 0 }
  await manager.certificateAuthority.issueX509Svid(request)
})

test('issueX509Svid() releases nothing that is not as meant', async () => {
  const { manager, random, clock } = await openAuthorities()
  const newSigner = async (): Promise<X509Signer> => {
    const keyManager = newMemoryKeyManager()
    const key = await keyManager.generateKey('test', 'ec-p256')
    const certificate = await issueRootCertificate(key, {
      trustDomain,
      subject: defaultCaSubject,
      serialNumber: random.bytes(16),
      nowSeconds: 1767225600,
      ttlSeconds: hour,
    })
    return newX509Signer(certificate, key)
  }
  const { templates } = await newSigner()
  const mixedUp = { ...(await newSigner()), templates }
  const issuer = new Issuer({
    trustDomain,
    signers: { x509: () => mixedUp, jwt: () => assert.fail('not used') },
    time: new IssueTime(clock, 0),
    random,
    defaults: {
      x509SvidTtlSeconds: 60,
      agentSvidTtlSeconds: 60,
      jwtSvidTtlSeconds: 60,
      jwtIssuer: undefined,
    },
    ca: { ttlSeconds: 60, subject: defaultCaSubject },
    onSign: () => ({ [Symbol.dispose]() {} }),
  })
  const request = { spiffeId: workload, publicKey: await newPublicKey(), ttlSeconds: 0 }
  await assert.rejects(issuer.issueX509Svid(request), { reason: 'issued-certificate-wrong' })
  await manager.certificateAuthority.issueX509Svid(request)
})

test('issueX509Svid() refuses keys that are weak, of unknown type or not well-formed', async () => {
  const { manager } = await openAuthorities()
  const der = { format: 'der', type: 'spki' } as const
  const rsa1024 = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export(der)
  const ed25519 = generateKeyPairSync('ed25519').publicKey.export(der)
  const koblitz = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey.export(der)
  const refusals: readonly (readonly [Uint8Array, RegExp])[] = [
    [rsa1024, /1024 bits/],
    [ed25519, /key type ed25519/],
    [koblitz, /key type/],
    [(await newPublicKey()).subarray(0, -1), /invalid DER/],
    [new Uint8Array(), /invalid DER/],
  ]
  for (const [publicKey, why] of refusals) {
    await assert.rejects(
      manager.certificateAuthority.issueX509Svid({ spiffeId: workload, publicKey, ttlSeconds: 0 }),
      refused(why),
    )
  }
})

test('issueX509Svid() refuses DNS names that are none, and too many', async () => {
  const { manager } = await openAuthorities()
  const publicKey = await newPublicKey()
  const issue = (dnsNames: readonly string[]) =>
    manager.certificateAuthority.issueX509Svid({
      spiffeId: workload,
      publicKey,
      dnsNames,
      ttlSeconds: 0,
    })
  for (const name of ['', 'a b', 'a..b', '.a', 'ü.org', 'a.org\0', '*', 'x*.a', 'a'.repeat(64)]) {
    await assert.rejects(issue([name]), refused(/DNS name/), JSON.stringify(name))
  }
  await assert.rejects(issue(Array(257).fill('a.org')), refused(/more than 256/))
})

test('a DNS name longer than a CommonName may be is no CommonName', async () => {
  const { manager } = await openAuthorities()
  const name = `${'a'.repeat(60)}.example.org`
  const svid = await manager.certificateAuthority.issueX509Svid({
    spiffeId: workload,
    publicKey: await newPublicKey(),
    dnsNames: [name, 'b.org'],
    ttlSeconds: 0,
  })
  assert.equal(leafOf(svid).subjectText, 'C=US, O=SPIRE')
  assert.deepEqual(leafOf(svid).dnsNames, [name, 'b.org'])
})

test('SVIDs live as long as asked, and never longer than their authority', async () => {
  const { manager, clock, nowSeconds } = await openAuthorities()
  const { certificateAuthority } = manager
  const publicKey = await newPublicKey()
  const x509 = (ttlSeconds: number) =>
    certificateAuthority.issueX509Svid({ spiffeId: workload, publicKey, ttlSeconds })
  const jwt = (ttlSeconds: number) =>
    certificateAuthority.issueJwtSvid({
      spiffeId: workload,
      audience: ['a'],
      ttlSeconds,
      includeJti: false,
    })
  const end = nowSeconds() + 24 * hour
  assert.equal((await x509(77)).expiresAtSeconds, nowSeconds() + 77)
  assert.equal((await jwt(77)).expiresAtSeconds, nowSeconds() + 77)
  assert.equal((await jwt(0)).expiresAtSeconds, nowSeconds() + 300)
  assert.equal((await x509(1e9)).expiresAtSeconds, end)
  assert.equal((await jwt(1e9)).expiresAtSeconds, end)
  for (const ttl of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    await assert.rejects(x509(ttl), refused(/TTL/))
    await assert.rejects(jwt(ttl), refused(/TTL/))
  }
  await clock.advance(seconds(24 * hour))
  await assert.rejects(x509(0), { code: 'unavailable', reason: 'authority-expired' })
  await assert.rejects(jwt(0), { code: 'unavailable', reason: 'authority-expired' })
})

test('certificates that end after 2049 have GeneralizedTime (RFC 5280 §4.1.2.5)', async () => {
  const clock = new FakeClock(Temporal.Instant.from('2049-12-31T23:30:00Z'))
  const authorities = await openAuthorities({ clock })
  const svid = await authorities.manager.certificateAuthority.issueX509Svid({
    spiffeId: workload,
    publicKey: await newPublicKey(),
    ttlSeconds: 0,
  })
  const leaf = leafOf(svid)
  const hex = leaf.raw.toHex()
  assert.ok(hex.includes(`170d${hexText('491231232950Z')}180f${hexText('20500101003000Z')}`))
  const root = await rootOf({ ...authorities })
  const at = Math.floor(clock.now().epochMilliseconds / 1000)
  assert.match(opensslVerify(leaf, root, { purpose: 'sslclient', at }), /OK/)
})

test('serial numbers are positive, below 2^128, and not repeated', async () => {
  const { manager } = await openAuthorities()
  const publicKey = await newPublicKey()
  const seen = new Set<string>()
  for (let i = 0; i < 600; i++) {
    const svid = await manager.certificateAuthority.issueX509Svid({
      spiffeId: workload,
      publicKey,
      ttlSeconds: 0,
    })
    const serial = BigInt(svid.serialNumber)
    assert.ok(serial > 0n && serial < 2n ** 128n)
    seen.add(svid.serialNumber)
  }
  assert.equal(seen.size, 600)
})

for (const jwtKeyType of caKeyTypes) {
  test(`issueJwtSvid() by ${jwtKeyType} is verified by jose, with nothing else in it (C3, C7, C8, C11)`, async () => {
    const authorities = await openAuthorities({ jwtKeyType })
    const now = authorities.nowSeconds()
    const svid = await authorities.manager.certificateAuthority.issueJwtSvid({
      spiffeId: workload,
      audience: ['spiffe://example.org/db'],
      ttlSeconds: 0,
      includeJti: false,
    })
    const [authority] = (await authorities.bundle()).jwtAuthorities
    assert.ok(authority)
    const alg = {
      'ec-p256': 'ES256',
      'ec-p384': 'ES384',
      'rsa-2048': 'RS256',
      'rsa-3072': 'RS256',
      'rsa-4096': 'RS256',
    }
    assert.deepEqual(decodeProtectedHeader(svid.token), {
      alg: alg[jwtKeyType],
      kid: authority.keyId,
      typ: 'JWT',
    })
    assert.match(authority.keyId, /^[0-9A-Za-z]{32}$/)
    const key = await importSPKI(encodePem('PUBLIC KEY', authority.publicKey), alg[jwtKeyType])
    const verify = (token: string) =>
      jwtVerify(token, key, {
        // biome-ignore lint/style/noRestrictedGlobals: jose takes the time as a Date
        currentDate: new Date(now * 1000),
      })
    const { payload } = await verify(svid.token)
    assert.deepEqual(payload, {
      sub: workload,
      aud: ['spiffe://example.org/db'],
      iat: now,
      exp: now + 300,
    })
    assert.deepEqual([svid.issuedAtSeconds, svid.expiresAtSeconds], [now, now + 300])
    const [header, claims = '', signature] = svid.token.split('.')
    const changed = claims.startsWith('e') ? `f${claims.slice(1)}` : `e${claims.slice(1)}`
    await assert.rejects(verify([header, changed, signature].join('.')))
  })
}

test('issueJwtSvid() has iss when configured and jti when asked, each its own', async () => {
  const svidDefaults = {
    x509SvidTtlSeconds: hour,
    agentSvidTtlSeconds: hour,
    jwtSvidTtlSeconds: 300,
    jwtIssuer: 'https://oidc.example.org',
  }
  const { manager } = await openAuthorities({ svidDefaults })
  const issue = async () => {
    const { token } = await manager.certificateAuthority.issueJwtSvid({
      spiffeId: workload,
      audience: ['a', 'b'],
      ttlSeconds: 0,
      includeJti: true,
    })
    const bytes = Uint8Array.fromBase64(token.split('.')[1] ?? '', { alphabet: 'base64url' })
    return JSON.parse(new TextDecoder().decode(bytes))
  }
  const [one, other] = [await issue(), await issue()]
  assert.deepEqual(one.aud, ['a', 'b'])
  assert.equal(one.iss, 'https://oidc.example.org')
  assert.match(one.jti, /^[\w-]{22}$/)
  assert.notEqual(one.jti, other.jti)
})

test('issueJwtSvid() refuses no audience, an empty one, and more than fit a token (C8)', async () => {
  const { manager } = await openAuthorities()
  const issue = (audience: readonly string[]) =>
    manager.certificateAuthority.issueJwtSvid({
      spiffeId: workload,
      audience,
      ttlSeconds: 0,
      includeJti: false,
    })
  await assert.rejects(issue([]), refused(/no audience/))
  await assert.rejects(issue(['a', '']), refused(/1 to 4096 characters/))
  await assert.rejects(issue(['a'.repeat(4097)]), refused(/1 to 4096 characters/))
  await assert.rejects(issue(Array(257).fill('a')), refused(/more than 256/))
  await assert.rejects(issue(Array(4).fill('a'.repeat(4096))), refused(/longer than 16384/))
})

const refused = (why: RegExp) => (error: unknown) => {
  assert.ok(error instanceof AssayError, String(error))
  assert.equal(error.code, 'invalid-argument')
  assert.match(error.message, why)
  return true
}

function* leafPublicKeys(): Iterable<Uint8Array> {
  const der = { format: 'der', type: 'spki' } as const
  for (const namedCurve of ['P-256', 'P-384', 'P-521']) {
    yield generateKeyPairSync('ec', { namedCurve }).publicKey.export(der)
  }
  yield generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export(der)
}

function opensslVerify(
  leaf: Certificate,
  root: Certificate,
  options: { purpose: string; at: number },
): string {
  const directory = mkdtempSync(join(tmpdir(), 'assay-issuer-'))
  try {
    const file = (name: string, { raw }: Certificate): string => {
      const path = join(directory, name)
      writeFileSync(path, encodePem('CERTIFICATE', raw))
      return path
    }
    return execFileSync(
      'openssl',
      [
        'verify',
        '-x509_strict',
        '-attime',
        `${options.at}`,
        '-purpose',
        options.purpose,
        '-CAfile',
        file('root.pem', root),
        file('leaf.pem', leaf),
      ],
      { encoding: 'utf8' },
    )
  } finally {
    rmSync(directory, { recursive: true })
  }
}
