import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pqWorkloadProfile } from '#issuance/profile.ts'
import { CertificateTemplate } from '#issuance/template.ts'
import { extensionOid, keyUsageBit, parseCertificate } from '#pki/certificate.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import {
  generateMlDsaKeyPair,
  type MlDsaParameterSet,
  mlDsaAlgorithm,
  mlDsaParameterSets,
  parseMlDsaPublicKey,
} from '#pq-crypto/ml-dsa.ts'
import { encodeBundle, parseBundle } from '#spiffe/bundle-json.ts'
import { validateJwtSvid } from '#spiffe/jwt-svid.ts'
import { encodePqBundle, parsePqBundle, pqBundle } from '#spiffe/pq-bundle.ts'
import { validatePqJwtSvid, verifyPqX509Svid } from '#spiffe/pq-svid.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { verifyX509Svid } from '#spiffe/x509-svid.ts'
import { newHybridServer, seconds, trustDomain } from '../../../test/support/authorities.ts'
import type { AuthorityManager } from './authority-manager.ts'

// SVIDs by ML-DSA alone, and the bundle that verifies them: along the classical authorities, from the same rotation.

const web = spiffeId(trustDomain, '/web')

function newServer() {
  const server = newHybridServer()
  const rounds = async (manager: AuthorityManager, count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      await server.clock.advance(seconds(10))
      await manager.round()
    }
  }
  return { ...server.options, ...server, rounds }
}

const request = async (set: MlDsaParameterSet = 'ml-dsa-44') => ({
  spiffeId: web,
  publicKey: (await generateMlDsaKeyPair(set)).publicKey,
  dnsNames: ['web.example.org'],
  ttlSeconds: 0,
})
const token = { spiffeId: web, audience: ['db'], ttlSeconds: 0, includeJti: false }

for (const set of mlDsaParameterSets) {
  test(`with ${set} SVIDs are issued by ML-DSA alone, and the post-quantum bundle verifies them`, async () => {
    const server = newServer()
    using manager = await server.start(set)
    const ca = manager.certificateAuthority
    const svid = await ca.issuePqX509Svid(await request(set))
    const [active] = manager.states('x509')
    assert.equal(svid.authorityId, active?.authorityId, 'named by the classical authority beside')
    // As a verifier elsewhere has it: from the document.
    const document = encodePqBundle(pqBundle(await server.bundle()))
    const bundle = parsePqBundle(document, trustDomain)
    const presentation = {
      certificates: svid.certificates,
      bundles: () => bundle,
      nowSeconds: server.nowSeconds(),
    }
    const verified = verifyPqX509Svid(presentation)
    assert.equal(verified.spiffeId, web)
    assert.equal(verified.parameterSet, set)
    assert.deepEqual(verified.leaf.dnsNames, ['web.example.org'])
    // RFC 9881 section 5: nothing but signing.
    assert.equal(verified.leaf.keyUsage, keyUsageBit.digitalSignature)
    assert.ok(verified.leaf.extensions.some(({ oid }) => oid === extensionOid.authorityKeyId))
    const { token: jwt } = await ca.issuePqJwtSvid(token)
    const expectation = { audience: 'db', bundles: () => bundle, nowSeconds: server.nowSeconds() }
    assert.equal(validatePqJwtSvid(jwt, expectation).spiffeId, web)
    assert.throws(() => validatePqJwtSvid(jwt, { ...expectation, audience: 'web' }), {
      reason: 'token-audience-mismatch',
    })
    // A classical verifier takes nothing of it, and finds nothing of it in its bundle.
    const classical = await server.bundle()
    assert.doesNotMatch(encodeBundle(classical), /"(AKP|ML-DSA-\d+)"/)
    assert.deepEqual(parseBundle(document, trustDomain).x509Authorities, [])
    assert.deepEqual(parseBundle(document, trustDomain).jwtAuthorities, [])
    assert.throws(() => verifyX509Svid({ ...presentation, bundles: () => classical }), {
      reason: 'unknown-authority',
    })
    assert.throws(() => verifyX509Svid(presentation), { code: 'unauthenticated' })
    assert.throws(() => validateJwtSvid(jwt, { ...expectation, bundles: () => classical }), {
      reason: 'token-algorithm-not-allowed',
    })
  })
}

test('verifyPqX509Svid() and validatePqJwtSvid() refuse what is classical, of another authority, or changed', async () => {
  const server = newServer()
  using manager = await server.start('ml-dsa-44')
  const other = newServer()
  using stranger = await other.start('ml-dsa-44')
  const ca = manager.certificateAuthority
  const bundle = pqBundle(await server.bundle())
  const of = (certificates: readonly Uint8Array[], from = bundle) => ({
    certificates,
    bundles: () => from,
    nowSeconds: server.nowSeconds(),
  })
  const { certificates } = await ca.issuePqX509Svid(await request())
  const [leaf] = certificates
  assert.ok(leaf)
  assert.equal(verifyPqX509Svid(of(certificates)).spiffeId, web)
  const flipped = leaf.slice()
  flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 1
  assert.throws(() => verifyPqX509Svid(of([flipped])), { reason: 'signature-invalid' })
  const foreign = await stranger.certificateAuthority.issuePqX509Svid(await request())
  assert.throws(() => verifyPqX509Svid(of(foreign.certificates)), { reason: 'unknown-authority' })
  const hybrid = await ca.issueX509Svid({
    spiffeId: web,
    publicKey: generateEcKeyPair('ec-p256').publicKey,
    ttlSeconds: 0,
  })
  assert.throws(() => verifyPqX509Svid(of(hybrid.certificates)), { reason: 'unknown-authority' })
  // Also where somebody has mistaken the one bundle for the other.
  assert.throws(
    () =>
      verifyPqX509Svid(
        of(hybrid.certificates, {
          ...bundle,
          ...{
            x509Authorities: manager
              .states('x509')
              .map(({ content }) => ({ certificate: content, tainted: false })),
          },
        }),
      ),
    {
      reason: 'key-not-allowed',
    },
  )
  const { token: jwt } = await ca.issuePqJwtSvid(token)
  const expectation = { audience: 'db', bundles: () => bundle, nowSeconds: server.nowSeconds() }
  const [head = '', claims = '', signature = ''] = jwt.split('.')
  const forged = `${head}.${claims}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`
  assert.throws(() => validatePqJwtSvid(forged, expectation), { reason: 'token-signature-invalid' })
  const { token: classical } = await ca.issueJwtSvid(token)
  assert.throws(() => validatePqJwtSvid(classical, expectation), {
    reason: 'token-algorithm-not-allowed',
  })
  const text = new TextDecoder().decode(Uint8Array.fromBase64(head, { alphabet: 'base64url' }))
  const renamed = new TextEncoder()
    .encode(text.replace('ML-DSA-44', 'ML-DSA-65'))
    .toBase64({ alphabet: 'base64url', omitPadding: true })
  assert.throws(() => validatePqJwtSvid(`${renamed}.${claims}.${signature}`, expectation), {
    reason: 'token-key-mismatch',
  })
})

test('verifyPqX509Svid() refuses a classical key below a post-quantum authority, and a wrong name for the algorithm', async () => {
  const server = newServer()
  using manager = await server.start('ml-dsa-44')
  const bundle = pqBundle(await server.bundle())
  const [root] = bundle.x509Authorities.map(({ certificate }) => parseCertificate(certificate))
  const key = server.alternatives.get(manager.states('x509')[0]?.keyId ?? '')
  assert.ok(root && key)
  /** What the authority would sign if nothing stopped it. */
  const signed = async (publicKey: Uint8Array, algorithm: MlDsaParameterSet) => {
    const template = new CertificateTemplate(pqWorkloadProfile, {
      issuer: {
        name: root.subject,
        keyId: root.subjectKeyId,
        signatureAlgorithm: mlDsaAlgorithm[algorithm],
      },
      subject: [],
    })
    const nowSeconds = server.nowSeconds()
    const toBeSigned = template.toBeSigned({
      serialNumber: Uint8Array.of(1),
      notBeforeSeconds: nowSeconds,
      notAfterSeconds: nowSeconds + 60,
      spiffeId: web,
      dnsNames: [],
      publicKey,
    })
    const certificates = [template.certificate(toBeSigned, await key.sign(toBeSigned))]
    return { certificates, bundles: () => bundle, nowSeconds }
  }
  const { publicKey } = await request()
  assert.equal(verifyPqX509Svid(await signed(publicKey, 'ml-dsa-44')).spiffeId, web)
  const classical = await signed(generateEcKeyPair('ec-p256').publicKey, 'ml-dsa-44')
  assert.throws(() => verifyPqX509Svid(classical), { reason: 'key-not-allowed' })
  const misnamed = await signed(publicKey, 'ml-dsa-65')
  assert.throws(() => verifyPqX509Svid(misnamed), { reason: 'signature-algorithm-not-allowed' })
})

test('a post-quantum SVID is issued for an ML-DSA key of a workload alone, and only where there is an authority for it', async () => {
  const server = newServer()
  using manager = await server.start('ml-dsa-44')
  const ca = manager.certificateAuthority
  const refused = { code: 'invalid-argument', reason: 'svid-request-not-allowed' }
  const { publicKey } = generateEcKeyPair('ec-p256')
  await assert.rejects(ca.issuePqX509Svid({ spiffeId: web, publicKey, ttlSeconds: 0 }), refused)
  const agent = {
    ...(await request()),
    dnsNames: [],
    spiffeId: spiffeId(trustDomain, '/spire/agent/x/y'),
  }
  await assert.rejects(ca.issuePqX509Svid(agent), refused)
  using off = await newServer().start(undefined)
  const none = { code: 'failed-precondition', reason: 'no-pq-authority' }
  await assert.rejects(off.certificateAuthority.issuePqX509Svid(await request()), none)
  await assert.rejects(off.certificateAuthority.issuePqJwtSvid(token), none)
})

test('the post-quantum bundle follows the classical one: on, another parameter set, taint, off', async () => {
  const server = newServer()
  const sets = async () => {
    const { x509Authorities, jwtAuthorities } = pqBundle(await server.bundle())
    return [
      x509Authorities.map((a) => parseMlDsaPublicKey(parseCertificate(a.certificate).publicKey)),
      jwtAuthorities.map((a) => parseMlDsaPublicKey(a.publicKey)),
    ].map((keys) => keys.map(({ parameterSet }) => parameterSet))
  }
  using before = await server.start(undefined)
  assert.deepEqual(await sets(), [[], []])
  assert.ok(before)
  using first = await server.start('ml-dsa-44')
  // Published, and nothing is signed by it before everybody has had the time to know it.
  assert.deepEqual(await sets(), [['ml-dsa-44'], ['ml-dsa-44']])
  await assert.rejects(first.certificateAuthority.issuePqX509Svid(await request()))
  await server.rounds(first, 7)
  const old = await first.certificateAuthority.issuePqX509Svid(await request())
  using second = await server.start('ml-dsa-65')
  await server.rounds(second, 7)
  assert.deepEqual(await sets(), [
    ['ml-dsa-44', 'ml-dsa-65'],
    ['ml-dsa-44', 'ml-dsa-65'],
  ])
  const present = await second.certificateAuthority.issuePqX509Svid(await request())
  for (const { certificates } of [old, present]) {
    const bundle = pqBundle(await server.bundle())
    const nowSeconds = server.nowSeconds()
    assert.equal(
      verifyPqX509Svid({ certificates, bundles: () => bundle, nowSeconds }).spiffeId,
      web,
    )
  }
  await second.taint('x509', old.authorityId)
  assert.deepEqual(
    pqBundle(await server.bundle()).x509Authorities.map(({ tainted }) => tainted),
    [true, false],
  )
  await second.revoke('x509', old.authorityId)
  assert.deepEqual((await sets())[0], ['ml-dsa-65'])
  using off = await server.start(undefined)
  await server.rounds(off, 7)
  await assert.rejects(off.certificateAuthority.issuePqJwtSvid(token), {
    reason: 'no-pq-authority',
  })
})

test('a restart goes on with the post-quantum authority, and one whose key is lost is replaced', async () => {
  const server = newServer()
  using first = await server.start('ml-dsa-44')
  assert.ok(first)
  const published = pqBundle(await server.bundle())
  using second = await server.start('ml-dsa-44')
  assert.deepEqual(pqBundle(await server.bundle()), published)
  const [jwt] = second.states('jwt')
  assert.ok(jwt)
  await server.alternatives.destroy(jwt.keyId)
  using third = await server.start('ml-dsa-44')
  const active = third.states('jwt').find(({ state }) => state === 'active')
  assert.notEqual(active?.authorityId, jwt.authorityId)
  await third.certificateAuthority.issuePqJwtSvid(token)
})
