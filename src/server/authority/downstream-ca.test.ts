import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { test } from 'node:test'
import { workloadProfile } from '#issuance/profile.ts'
import { CertificateTemplate } from '#issuance/template.ts'
import { type Certificate, keyUsageBit, parseCertificate } from '#pki/certificate.ts'
import { attributeType, parseName } from '#pki/name.ts'
import { generateEcKeyPair, type KeyPair } from '#pki/private-key.ts'
import { describePublicKey } from '#pki/public-key.ts'
import { signatureAlgorithmFor } from '#pki/signature-algorithm.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { verifyX509Svid } from '#spiffe/x509-svid.ts'
import { day, hour, openAuthorities, trustDomain } from '../../../test/support/authorities.ts'
import {
  type CertificateOptions,
  newAuthority,
  newIntermediate,
  nowSeconds as start,
} from '../../../test/support/certificates.ts'
import { newUpstreamFolder } from '../../../test/support/upstream.ts'
import type { AuthorityManager } from './authority-manager.ts'

const newKey = (): KeyPair => generateEcKeyPair('ec-p256')

/** A leaf as a downstream server would sign it with its CA. */
function signLeaf(ca: Certificate, key: KeyPair): Uint8Array {
  const template = new CertificateTemplate(workloadProfile, {
    issuer: {
      name: ca.subject,
      keyId: ca.subjectKeyId,
      signatureAlgorithm: signatureAlgorithmFor(describePublicKey(ca.publicKey)).identifier,
    },
    subject: [],
  })
  const toBeSigned = template.toBeSigned({
    serialNumber: Uint8Array.of(7),
    notBeforeSeconds: ca.notBeforeSeconds,
    notAfterSeconds: ca.notAfterSeconds,
    spiffeId: spiffeId(trustDomain, '/web'),
    dnsNames: [],
    publicKey: newKey().publicKey,
  })
  return template.certificate(
    toBeSigned,
    new Uint8Array(sign('sha256', toBeSigned, key.privateKey)),
  )
}

const issue = async (manager: AuthorityManager, { publicKey }: KeyPair, ttlSeconds = 0) =>
  await manager.certificateAuthority.issueDownstreamCa({ publicKey, ttlSeconds })

test('issueDownstreamCa() makes a CA of the trust domain that signs SVIDs which the bundle verifies', async () => {
  const { manager, bundle, nowSeconds } = await openAuthorities({ caTtlSeconds: day })
  const key = newKey()
  const { certificates, expiresAtSeconds, authorityId } = await issue(manager, key, hour)
  assert.equal(certificates.length, 1)
  const ca = parseCertificate(certificates[0] ?? new Uint8Array())
  assert.deepEqual(ca.uris, ['spiffe://example.org'])
  assert.deepEqual(ca.basicConstraints, { isCa: true, pathLength: undefined })
  assert.equal(ca.keyUsage, keyUsageBit.keyCertSign | keyUsageBit.cRLSign)
  assert.equal(ca.extendedKeyUsage, undefined, 'it authenticates nobody')
  assert.deepEqual(ca.publicKey, key.publicKey)
  assert.equal(expiresAtSeconds, nowSeconds() + hour)
  assert.equal(ca.notAfterSeconds, expiresAtSeconds)
  assert.equal(authorityId, manager.states('x509')[0]?.authorityId)
  const unit = parseName(ca.subject).find(({ type }) => type === attributeType.organizationalUnit)
  assert.equal(unit?.value, 'DOWNSTREAM-1')
  const held = await bundle()
  const verified = verifyX509Svid({
    certificates: [signLeaf(ca, key), ...certificates],
    bundles: () => held,
    nowSeconds: nowSeconds(),
  })
  assert.equal(verified.spiffeId, 'spiffe://example.org/web')
})

test('issueDownstreamCa() ends the CA no later than the authority, and after ca_ttl by itself', async () => {
  const { manager, nowSeconds } = await openAuthorities({ caTtlSeconds: day })
  const endSeconds = manager.states('x509')[0]?.expiresAtSeconds
  assert.equal((await issue(manager, newKey(), 365 * day)).expiresAtSeconds, endSeconds)
  assert.equal((await issue(manager, newKey())).expiresAtSeconds, nowSeconds() + day)
  assert.equal(manager.states('x509')[0]?.signedUntilSeconds, endSeconds)
})

test('issueDownstreamCa() gives each CA a name and a serial number of its own', async () => {
  const { manager } = await openAuthorities()
  const key = newKey()
  const all = [await issue(manager, key), await issue(manager, key)]
  const subjects = all.map(({ certificates: [ca = new Uint8Array()] }) =>
    parseCertificate(ca).subject.toHex(),
  )
  assert.equal(new Set(subjects).size, 2)
  assert.equal(new Set(all.map(({ serialNumber }) => serialNumber)).size, 2)
})

test('issueDownstreamCa() refuses a key that is weak, and a lifetime that is none', async () => {
  const { manager } = await openAuthorities()
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey
  const publicKey = new Uint8Array(weak.export({ format: 'der', type: 'spki' }))
  const { certificateAuthority } = manager
  const refused = { code: 'invalid-argument', reason: 'svid-request-not-allowed' }
  await assert.rejects(
    certificateAuthority.issueDownstreamCa({ publicKey, ttlSeconds: 0 }),
    refused,
  )
  await assert.rejects(issue(manager, newKey(), -1), refused)
})

async function below(options: CertificateOptions) {
  const notAfterSeconds = start + 365 * day
  const root = newAuthority('example.org', { notAfterSeconds })
  const upstream = newIntermediate(root, 'example.org', { notAfterSeconds, ...options })
  const folder = await newUpstreamFolder()
  await folder.write(upstream, [], [root])
  const { clock } = await openAuthorities()
  const upstreamAuthority = folder.open(clock)
  return { ...(await openAuthorities({ upstreamAuthority })), folder, root, upstream }
}

test('issueDownstreamCa() below an upstream authority hands out the path to the root', async () => {
  const { manager, bundle, folder, root, upstream, nowSeconds } = await below({})
  await using _folder = folder
  const key = newKey()
  const { certificates, authorityId } = await issue(manager, key)
  assert.equal(certificates.length, 3)
  assert.deepEqual(certificates[2], upstream.certificate)
  assert.equal(authorityId, parseCertificate(root.certificate).subjectKeyId?.toHex())
  const ca = parseCertificate(certificates[0] ?? new Uint8Array())
  const held = await bundle()
  const { path } = verifyX509Svid({
    certificates: [signLeaf(ca, key), ...certificates],
    bundles: () => held,
    nowSeconds: nowSeconds(),
  })
  assert.deepEqual(path.at(-1)?.raw, root.certificate)
})

test('issueDownstreamCa() refuses where a CA above leaves no room below this server', async () => {
  const { manager, folder } = await below({ pathLength: 1 })
  await using _folder = folder
  await assert.rejects(issue(manager, newKey()), {
    code: 'failed-precondition',
    reason: 'no-room-below',
  })
})
