import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PqPolicy } from '#pq-crypto/alternative-chain.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { newAuthority, newSvid, nowSeconds } from '../../../test/support/certificates.ts'
import { newHybridAuthority, newHybridSvid } from '../../../test/support/hybrid-certificates.ts'
import { type ServerTrust, verifyServer } from './server-trust.ts'

const trustDomain = parseTrustDomain('example.org')
const authority = newAuthority('example.org')
const bundle: Bundle = {
  trustDomain,
  x509Authorities: [{ certificate: authority.certificate, tainted: false }],
  jwtAuthorities: [],
  refreshHintSeconds: 0,
  sequenceNumber: 1n,
}
const trusted: ServerTrust = { kind: 'bundle', bundle }
const against = (trust: ServerTrust, pqPolicy: PqPolicy = 'prefer') => ({
  trust,
  trustDomain,
  pqPolicy,
  nowSeconds,
})
const server = newSvid(authority, 'spiffe://example.org/spire/server').certificate

test('verifyServer() accepts the server of the trust domain', () => {
  verifyServer([server], against(trusted))
})

test('verifyServer() refuses a workload, an agent, and the server of another authority', () => {
  for (const id of ['spiffe://example.org/web', 'spiffe://example.org/spire/agent/tpm/1']) {
    const { certificate } = newSvid(authority, id)
    assert.throws(() => verifyServer([certificate], against(trusted)), { reason: 'not-a-server' })
  }
  const stranger = newSvid(newAuthority('example.org'), 'spiffe://example.org/spire/server')
  assert.throws(() => verifyServer([stranger.certificate], against(trusted)), {
    reason: 'unknown-authority',
  })
})

test('verifyServer() names both trust domains when the server is of another', () => {
  const other = newSvid(newAuthority('example.com'), 'spiffe://example.com/spire/server')
  assert.throws(() => verifyServer([other.certificate], against(trusted)), {
    reason: 'not-a-server',
    message:
      'the server is of trust domain example.com, and this agent of example.org: correct trust_domain or server_address in agent.yaml',
  })
})

test('verifyServer() refuses a server that shows nothing', () => {
  assert.throws(() => verifyServer([], against(trusted)), { code: 'unauthenticated' })
  assert.throws(() => verifyServer([], against({ kind: 'insecure' })), { code: 'unauthenticated' })
})

test('verifyServer() checks the ID even where nothing else can be checked', () => {
  const stranger = newSvid(newAuthority('example.org'), 'spiffe://example.org/spire/server')
  verifyServer([stranger.certificate], against({ kind: 'insecure' }))
  const workload = newSvid(newAuthority('example.org'), 'spiffe://example.org/web')
  assert.throws(() => verifyServer([workload.certificate], against({ kind: 'insecure' })), {
    reason: 'not-a-server',
  })
})

test('verifyServer() wants post-quantum signatures as it is told, by the authority of the bundle', () => {
  const hybrid = newHybridAuthority('example.org')
  const x509Authorities = [{ certificate: hybrid.certificate, tainted: false }]
  const trust: ServerTrust = { kind: 'bundle', bundle: { ...bundle, x509Authorities } }
  const id = 'spiffe://example.org/spire/server'
  const both = [newHybridSvid(hybrid, id).certificate]
  assert.equal(verifyServer(both, against(trust, 'require')), 'verified')
  const stripped = [newSvid(hybrid, id).certificate]
  assert.equal(verifyServer(stripped, against(trust, 'prefer')), 'absent')
  assert.equal(verifyServer(stripped, against({ kind: 'insecure' }, 'require')), undefined)
  const absent = { reason: 'pq-signature-absent' }
  assert.throws(() => verifyServer(stripped, against(trust, 'require')), absent)
  assert.throws(() => verifyServer([server], against(trusted, 'require')), absent)
})
