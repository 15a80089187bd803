import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import type { PqPolicy } from '#pq-crypto/alternative-chain.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { newSvid } from '../../test/support/certificates.ts'
import { newHybridAuthority, newHybridSvid } from '../../test/support/hybrid-certificates.ts'
import { attackedId, pqAttacks } from '../../test/support/pq-attacks.ts'
import { newClientVerifier } from './client-verifier.ts'

const trustDomain = parseTrustDomain('example.org')

function verifierOf(pqPolicy: PqPolicy, anchors: Readonly<Record<string, Uint8Array>>) {
  return newClientVerifier({
    trustDomain,
    adminIds: () => new Set([parseSpiffeId('spiffe://admins.org/alice')]),
    bundles: {
      bundle: (name) => ({
        trustDomain: name,
        x509Authorities: [{ certificate: anchors[name] ?? new Uint8Array(), tainted: false }],
        jwtAuthorities: [],
        refreshHintSeconds: 0,
        sequenceNumber: 1n,
      }),
    },
    pqPolicy,
    clock: new FakeClock(),
  })
}

test('newClientVerifier() says who a client is and what was found of its post-quantum signatures', () => {
  const authority = newHybridAuthority('example.org')
  const anchors = { 'example.org': authority.certificate }
  const id = 'spiffe://example.org/spire/agent/x'
  const both = [newHybridSvid(authority, id).certificate]
  const stripped = [newSvid(authority, id).certificate]
  const found = verifierOf('require', anchors)(both)
  assert.deepEqual([found.spiffeId, found.pq], [id, 'verified'])
  assert.equal(verifierOf('prefer', anchors)(stripped).pq, 'absent')
  assert.throws(() => verifierOf('require', anchors)(stripped), { reason: 'pq-signature-absent' })
})

test('newClientVerifier() refuses every attack on post-quantum signatures under require', () => {
  for (const [name, attack] of Object.entries(pqAttacks)) {
    const { chain, anchor, pq, classicallyValid } = attack()
    const verify = verifierOf('require', { 'example.org': anchor })
    const reason = classicallyValid ? `pq-signature-${pq}` : 'unknown-critical-extension'
    assert.throws(() => verify(chain), { reason }, name)
    if (pq === 'absent') {
      const lenient = verifierOf('prefer', { 'example.org': anchor })
      assert.equal(lenient(chain).spiffeId, attackedId)
    }
  }
})

test('newClientVerifier() lets in from another trust domain only who is named', () => {
  const authority = newHybridAuthority('admins.org')
  const verify = verifierOf('prefer', { 'admins.org': authority.certificate })
  const svid = (path: string) => [
    newHybridSvid(authority, `spiffe://admins.org/${path}`).certificate,
  ]
  assert.equal(verify(svid('alice')).spiffeId, 'spiffe://admins.org/alice')
  assert.throws(() => verify(svid('bob')), { reason: 'trust-domain-foreign' })
})
