import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import type { PqPolicy } from '#pq-crypto/alternative-chain.ts'
import { newSvid, nowSeconds } from '../../test/support/certificates.ts'
import {
  newHybridAuthority,
  newHybridIntermediate,
  newHybridSvid,
} from '../../test/support/hybrid-certificates.ts'
import type { Bundle } from './bundle.ts'
import { verifyHybridX509Svid } from './hybrid-x509-svid.ts'
import { parseTrustDomain } from './trust-domain.ts'

const id = 'spiffe://example.org/web'
const trustDomain = parseTrustDomain('example.org')

function bundleOf(...certificates: readonly Uint8Array[]): Bundle {
  const x509Authorities = certificates.map((certificate) => ({ certificate, tainted: false }))
  return {
    trustDomain,
    x509Authorities,
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
  }
}

const verify = (certificates: readonly Uint8Array[], bundle: Bundle, policy: PqPolicy) =>
  verifyHybridX509Svid({ certificates, bundles: () => bundle, nowSeconds, policy })

const reasonOf = (work: () => unknown): string | undefined => {
  try {
    work()
  } catch (error) {
    return error instanceof AssayError ? error.reason : String(error)
  }
  return 'accepted'
}

test('verifyHybridX509Svid() says who the peer is and that its post-quantum signatures hold', () => {
  const authority = newHybridAuthority('example.org')
  const middle = newHybridIntermediate(authority, 'example.org')
  const leaf = newHybridSvid(middle, id)
  const bundle = bundleOf(authority.certificate)
  const found = verify([leaf.certificate, middle.certificate], bundle, 'require')
  assert.deepEqual([found.spiffeId, found.pq, found.path.length], [id, 'verified', 3])
})

test('verifyHybridX509Svid() refuses by policy what has none, and always what is classically wrong', () => {
  const authority = newHybridAuthority('example.org')
  const bundle = bundleOf(authority.certificate)
  const stripped = [newSvid(authority, id).certificate]
  assert.equal(verify(stripped, bundle, 'prefer').pq, 'absent')
  assert.equal(
    reasonOf(() => verify(stripped, bundle, 'require')),
    'pq-signature-absent',
  )
  const other = newHybridAuthority('example.org')
  const foreign = [newHybridSvid(other, id).certificate]
  assert.equal(
    reasonOf(() => verify(foreign, bundle, 'prefer')),
    'unknown-authority',
  )
})
