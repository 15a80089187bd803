import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import {
  type Issued,
  newAuthority,
  newSvid,
  nowSeconds,
} from '../../../test/support/certificates.ts'
import { BundleSet } from './bundle-set.ts'

const trustDomain = parseTrustDomain('example.org')
const partner = parseTrustDomain('partner.example')

function bundleOf(authorities: readonly Issued[], over: Partial<Bundle> = {}): Bundle {
  return {
    trustDomain,
    x509Authorities: authorities.map(({ certificate }) => ({ certificate, tainted: false })),
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
    ...over,
  }
}

const idOf = ({ certificate }: Issued): string =>
  parseCertificate(certificate).subjectKeyId?.toHex() ?? ''

test('BundleSet.setOwn() tells a bundle of other content from the same one again', () => {
  const authority = newAuthority('example.org')
  const bundles = new BundleSet()
  assert.equal(bundles.setOwn(bundleOf([authority])), true)
  assert.equal(bundles.setOwn(bundleOf([authority])), false)
  assert.equal(bundles.setOwn(bundleOf([authority], { sequenceNumber: 2n })), true)
  assert.equal(bundles.setOwn(bundleOf([authority, newAuthority('example.org')])), true)
})

test('BundleSet.trustOf() tells trusted, tainted and unknown authorities apart', () => {
  const [sound, tainted, revoked] = [1, 2, 3].map(() => newAuthority('example.org'))
  assert.ok(sound && tainted && revoked)
  const bundles = new BundleSet()
  const { x509Authorities } = bundleOf([sound, tainted])
  bundles.setOwn(
    bundleOf([], {
      x509Authorities: x509Authorities.map((a, i) => ({ ...a, tainted: i === 1 })),
    }),
  )
  assert.deepEqual(
    [sound, tainted, revoked].map((each) => bundles.trustOf(idOf(each))),
    ['trusted', 'tainted', 'unknown'],
  )
})

test('BundleSet.issuerIdOf() names the authority a chain says it ends at', () => {
  const authority = newAuthority('example.org')
  const bundles = new BundleSet()
  bundles.setOwn(bundleOf([authority]))
  const svid = newSvid(authority, 'spiffe://example.org/web')
  assert.equal(bundles.issuerIdOf([svid.certificate], nowSeconds), idOf(authority))
})

test('BundleSet.issuerIdOf() verifies a chain that does not say, and refuses one that ends nowhere', () => {
  const authority = newAuthority('example.org')
  const bundles = new BundleSet()
  bundles.setOwn(bundleOf([newAuthority('example.org'), authority]))
  const silent = { authorityKeyId: null }
  const svid = newSvid(authority, 'spiffe://example.org/web', silent)
  assert.equal(bundles.issuerIdOf([svid.certificate], nowSeconds), idOf(authority))
  const stranger = newSvid(newAuthority('example.org'), 'spiffe://example.org/web', silent)
  assert.throws(() => bundles.issuerIdOf([stranger.certificate], nowSeconds), {
    code: 'unauthenticated',
  })
  assert.throws(() => bundles.issuerIdOf([], nowSeconds), SyntaxError)
})

test('BundleSet keeps federated bundles by trust domain', () => {
  const bundles = new BundleSet()
  const foreign = bundleOf([newAuthority('partner.example')], { trustDomain: partner })
  assert.equal(bundles.setFederated(foreign), true)
  assert.equal(bundles.setFederated({ ...foreign }), false)
  assert.equal(bundles.federated.get(partner), foreign)
  assert.equal(bundles.deleteFederated(partner), true)
  assert.equal(bundles.deleteFederated(partner), false)
})
