import assert from 'node:assert/strict'
import { test } from 'node:test'
import { equalBytes } from '#base/bytes.ts'
import { keyUsageBit, parseCertificate } from '#pki/certificate.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import {
  type CertificateOptions,
  type Issued,
  issue,
  newAuthority,
  newIntermediate,
  newSvid,
  nowSeconds,
} from '../../test/support/certificates.ts'
import { mutated, seeded } from '../../test/support/seeded.ts'
import type { Bundle } from './bundle.ts'
import type { TrustDomain } from './trust-domain.ts'
import { spiffeIdOf, type VerifiedX509Svid, verifyX509Svid } from './x509-svid.ts'

const root = newAuthority('td')
const id = 'spiffe://td/web'
const leafUsage = keyUsageBit.digitalSignature

function bundle(trustDomain: string, ...authorities: Issued[]): Bundle {
  return {
    trustDomain: trustDomain as TrustDomain,
    x509Authorities: authorities.map(({ certificate }) => ({ certificate, tainted: false })),
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
  }
}

function verify(chain: readonly Issued[], ...bundles: Bundle[]): VerifiedX509Svid {
  const trusted = bundles.length === 0 ? [bundle('td', root)] : bundles
  return verifyX509Svid({
    certificates: chain.map(({ certificate }) => certificate),
    bundles: (trustDomain) => trusted.find((b) => b.trustDomain === trustDomain),
    nowSeconds,
  })
}

function refuses(title: string, reason: string, options: CertificateOptions): void {
  test(title, () => {
    assert.throws(() => verify([newSvid(root, id, options)]), {
      name: 'AssayError',
      code: 'unauthenticated',
      reason,
    })
  })
}

test('B1 verifyX509Svid() gives the ID and the leaf', () => {
  const svid = newSvid(root, id)
  const verified = verify([svid])
  assert.equal(verified.spiffeId, id)
  assert.deepEqual(verified.leaf.raw, svid.certificate)
})

test('B4 verifyX509Svid() accepts DNS names beside the URI', () => {
  assert.equal(verify([newSvid(root, id, { dnsNames: ['web.td', '*.td'] })]).spiffeId, id)
})

refuses('B2 verifyX509Svid() refuses two SPIFFE IDs', 'svid-with-several-uris', {
  uris: [id, 'spiffe://td/other'],
})
refuses('B2 verifyX509Svid() refuses a second URI of another scheme', 'svid-with-several-uris', {
  uris: [id, 'https://td/web'],
})
refuses('B2 verifyX509Svid() refuses a second URI before the ID', 'svid-with-several-uris', {
  uris: ['https://td/web', id],
})
refuses('B2 verifyX509Svid() refuses the same URI twice', 'svid-with-several-uris', {
  uris: [id, id],
})
refuses('B3 verifyX509Svid() refuses a DNS name alone', 'svid-without-id', {
  uris: [],
  dnsNames: ['web.td'],
})
refuses('B3 verifyX509Svid() refuses a certificate without alternative names', 'svid-without-id', {
  uris: [],
})
refuses('B11 verifyX509Svid() refuses a CA', 'svid-is-signing-certificate', { ca: true })
refuses('B22 verifyX509Svid() refuses cA true without keyCertSign', 'svid-is-signing-certificate', {
  ca: true,
  keyUsage: leafUsage,
})
refuses('B17 verifyX509Svid() refuses keyCertSign in a leaf', 'svid-is-signing-certificate', {
  keyUsage: leafUsage | keyUsageBit.keyCertSign,
})
refuses('B23 verifyX509Svid() refuses cRLSign in a leaf', 'svid-is-signing-certificate', {
  keyUsage: leafUsage | keyUsageBit.cRLSign,
})
refuses('B24 verifyX509Svid() refuses a URI of another scheme', 'svid-id-invalid', {
  uris: ['https://td/web'],
})
refuses('A12 verifyX509Svid() refuses a URI that is no SPIFFE ID', 'svid-id-invalid', {
  uris: ['spiffe://td//web'],
})
refuses('B25 verifyX509Svid() refuses an ID without a path', 'svid-id-without-path', {
  uris: ['spiffe://td'],
})
refuses('B21 verifyX509Svid() refuses an expired leaf', 'certificate-expired', {
  notAfterSeconds: nowSeconds - 1,
})
refuses('B21 verifyX509Svid() refuses a leaf that is not yet valid', 'certificate-not-yet-valid', {
  notBeforeSeconds: nowSeconds + 1,
})
refuses('B21 verifyX509Svid() refuses a signature by another key', 'signature-invalid', {
  signingKey: generateEcKeyPair('ec-p256').privateKey,
})

test('B22 verifyX509Svid() takes missing basic constraints as cA false', () => {
  assert.equal(verify([newSvid(root, id, { ca: undefined })]).spiffeId, id)
})

for (const [name, keyUsage] of Object.entries({
  'digitalSignature alone': leafUsage,
  'keyEncipherment and keyAgreement too':
    leafUsage | keyUsageBit.keyEncipherment | keyUsageBit.keyAgreement,
  'no key usage': undefined,
})) {
  test(`B18 verifyX509Svid() accepts a leaf with ${name}`, () => {
    assert.equal(verify([newSvid(root, id, { keyUsage })]).spiffeId, id)
  })
}

test('B10 verifyX509Svid() refuses the signing certificate itself', () => {
  assert.throws(() => verify([root]), { reason: 'svid-id-without-path' })
  const withPath = newAuthority('td', { uris: [id] })
  assert.throws(() => verify([withPath], bundle('td', withPath)), {
    reason: 'svid-is-signing-certificate',
  })
})

test('B21 verifyX509Svid() follows intermediates, and refuses one that is no CA', () => {
  const intermediate = newIntermediate(root, 'td')
  assert.equal(verify([newSvid(intermediate, id), intermediate]).spiffeId, id)
  assert.throws(() => verify([newSvid(intermediate, id)]), { reason: 'unknown-authority' })
  const other = newSvid(root, 'spiffe://td/other')
  assert.throws(() => verify([newSvid(other, id), other]), { reason: 'issuer-not-a-ca' })
})

test('B29 verifyX509Svid() takes an intermediate as authority', () => {
  const intermediate = newIntermediate(root, 'td')
  assert.equal(verify([newSvid(intermediate, id)], bundle('td', intermediate)).spiffeId, id)
})

test('B33 verifyX509Svid() trusts every authority of the bundle, tainted or not', () => {
  const second = newAuthority('td')
  const both = bundle('td', root, second)
  const tainted = {
    ...both,
    x509Authorities: both.x509Authorities.map((authority) => ({ ...authority, tainted: true })),
  }
  for (const authority of [root, second]) {
    assert.equal(verify([newSvid(authority, id)], both).spiffeId, id)
    assert.equal(verify([newSvid(authority, id)], tainted).spiffeId, id)
  }
})

test('A25, G15 verifyX509Svid() refuses an ID signed by the authority of another trust domain', () => {
  const foreign = newAuthority('foreign')
  const bundles = [bundle('td', root), bundle('foreign', foreign)]
  assert.throws(() => verify([newSvid(foreign, id)], ...bundles), { reason: 'unknown-authority' })
  assert.equal(
    verify([newSvid(foreign, 'spiffe://foreign/a')], ...bundles).spiffeId,
    'spiffe://foreign/a',
  )
  const intermediate = newIntermediate(foreign, 'td')
  assert.throws(() => verify([newSvid(intermediate, id), intermediate], ...bundles), {
    reason: 'unknown-authority',
  })
})

test('K3 verifyX509Svid() refuses swapped bundles', () => {
  const foreign = newAuthority('foreign')
  const swapped = [bundle('td', foreign), bundle('foreign', root)]
  assert.throws(() => verify([newSvid(root, id)], ...swapped), { reason: 'unknown-authority' })
  assert.throws(
    () =>
      verifyX509Svid({
        certificates: [newSvid(root, id).certificate],
        bundles: () => bundle('foreign', root),
        nowSeconds,
      }),
    { reason: 'trust-domain-unknown' },
  )
})

test('F12 verifyX509Svid() refuses a trust domain without a bundle', () => {
  assert.throws(() => verify([newSvid(root, 'spiffe://unknown/a')]), {
    reason: 'trust-domain-unknown',
  })
})

test('B32 verifyX509Svid() refuses a trust domain without X.509 authorities', () => {
  assert.throws(() => verify([newSvid(root, id)], bundle('td')), {
    reason: 'trust-domain-without-x509',
  })
})

test('B30 verifyX509Svid() is not disturbed by an authority that cannot be read', () => {
  const broken = { ...root, certificate: Uint8Array.of(1, 2, 3) }
  assert.equal(verify([newSvid(root, id)], bundle('td', broken, root)).spiffeId, id)
  assert.throws(() => verify([newSvid(root, id)], bundle('td', broken)), {
    reason: 'trust-domain-without-x509',
  })
})

test('verifyX509Svid() refuses nothing, rubbish and more than 16 certificates', () => {
  assert.throws(() => verify([]), { reason: 'certificate-malformed' })
  const rubbish = { ...root, certificate: Uint8Array.of(0x30, 0) }
  assert.throws(() => verify([rubbish]), { reason: 'certificate-malformed' })
  const svid = newSvid(root, id)
  assert.throws(() => verify([svid, rubbish]), {
    reason: 'certificate-malformed',
    message: /certificate 2/,
  })
  assert.throws(() => verify(Array.from({ length: 17 }, () => svid)), { reason: 'chain-too-long' })
})

test('A23 verifyX509Svid() accepts no certificate with a changed byte, and throws only AssayError', () => {
  const random = seeded(7)
  const svid = newSvid(root, id)
  const trusted = bundle('td', root)
  for (let i = 0; i < 1000; i++) {
    const certificate = mutated(random, svid.certificate)
    if (equalBytes(certificate, svid.certificate)) continue
    assert.throws(() => verify([{ ...svid, certificate }], trusted), { name: 'AssayError' })
  }
})

test('spiffeIdOf() reads the ID of a signing certificate, which has no path', () => {
  assert.equal(spiffeIdOf(parseCertificate(root.certificate)), 'spiffe://td')
  const none = parseCertificate(issue(undefined, {}).certificate)
  assert.throws(() => spiffeIdOf(none), { reason: 'svid-without-id' })
})
