import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { newAuthority, newSvid, nowSeconds } from '../../../test/support/certificates.ts'
import { BundleOffer, fingerprintOf, parseFingerprint } from './pinned-bundle.ts'

const trustDomain = parseTrustDomain('example.org')
const own = newAuthority('example.org')
const other = newAuthority('example.org')
const server = newSvid(own, 'spiffe://example.org/spire/server')

const offer = (chain: readonly Uint8Array[]) =>
  new BundleOffer(
    {
      trustDomain,
      x509Authorities: [own, other].map(({ certificate }) => ({ certificate, tainted: false })),
      jwtAuthorities: [],
      refreshHintSeconds: 0,
      sequenceNumber: 1n,
    },
    { chain, nowSeconds },
  )

test('BundleOffer.verify() gives the bundle to who knows the authority that the sender has', () => {
  const good = offer([server.certificate])
  assert.equal(good.fingerprints.length, 2)
  assert.equal(good.verify(fingerprintOf(own.certificate)).x509Authorities.length, 2)
})

test('BundleOffer.verify() refuses a bundle without that authority', () => {
  assert.throws(() => offer([server.certificate]).verify('00'.repeat(32)), {
    reason: 'fingerprint-mismatch',
  })
})

test('BundleOffer.verify() refuses a sender that only has the authority in its bundle', () => {
  // Who stands in between can send any bundle: it has to hold a certificate of the pinned authority too.
  const wanted = fingerprintOf(other.certificate)
  assert.throws(() => offer([server.certificate]).verify(wanted), { code: 'unauthenticated' })
  assert.throws(() => offer([]).verify(wanted), { code: 'unauthenticated' })
})

test('BundleOffer.verify() refuses a workload of the trust domain in the place of the server', () => {
  const workload = newSvid(own, 'spiffe://example.org/web')
  assert.throws(() => offer([workload.certificate]).verify(fingerprintOf(own.certificate)), {
    reason: 'not-a-server',
  })
})

test('parseFingerprint() takes what openssl and people write', () => {
  const hex = 'ab'.repeat(32)
  const colons = hex.toUpperCase().replace(/..(?=.)/g, '$&:')
  for (const text of [hex, `sha256:${hex}`, colons, `SHA256=${colons}`]) {
    assert.equal(parseFingerprint(text), hex)
  }
  for (const text of ['', 'ab', `${hex}0`, 'zz'.repeat(32)]) {
    assert.throws(() => parseFingerprint(text), SyntaxError, text)
  }
})
