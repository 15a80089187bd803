import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { Metrics } from '#telemetry/metrics.ts'
import type { CertificateAuthority, JwtSvidRequest } from './ca/certificate-authority.ts'
import { IssueHistory } from './issue-history.ts'
import { meteredAuthority } from './metered-authority.ts'
import { Namespaces } from './namespaces.ts'

const id = parseSpiffeId('spiffe://example.org/web/a')
const jwt: JwtSvidRequest = { spiffeId: id, audience: ['db'], ttlSeconds: 0, includeJti: false }
const x509 = { spiffeId: id, publicKey: new Uint8Array(), ttlSeconds: 0 }
const agent = { ...x509, spiffeId: parseSpiffeId('spiffe://example.org/spire/agent/tpm/a') }
const issued = { spiffeId: id, expiresAtSeconds: 1 }

/** Signs X.509-SVIDs, and is down for JWT-SVIDs. */
const authority: CertificateAuthority = {
  issueX509Svid: () =>
    Promise.resolve({ ...issued, certificates: [], serialNumber: '1', authorityId: 'a' }),
  issueJwtSvid: () =>
    Promise.reject(new AssayError('unavailable', 'no key', { reason: 'key-manager-down' })),
  issueDownstreamCa: () =>
    Promise.resolve({ certificates: [], serialNumber: '1', expiresAtSeconds: 1, authorityId: 'a' }),
  issuePqX509Svid: () => authority.issueX509Svid(x509),
  issuePqJwtSvid: () => authority.issueJwtSvid(jwt),
}

async function counted(namespaces: Namespaces | undefined): Promise<readonly string[]> {
  const metrics = new Metrics()
  const metered = meteredAuthority(authority, {
    metrics,
    history: new IssueHistory(new FakeClock()),
    namespaces,
  })
  await metered.issueX509Svid(x509)
  await metered.issueX509Svid(agent)
  await metered.issueDownstreamCa(x509)
  await assert.rejects(metered.issueJwtSvid(jwt), { reason: 'key-manager-down' })
  return (await metrics.exposition()).split('\n').filter((line) => /^assay_.*svids/.test(line))
}

test('meteredAuthority() counts what is signed by type, and what is not by reason', async () => {
  assert.deepEqual(await counted(undefined), [
    'assay_svids_issued_total{type="x509"} 1',
    'assay_svids_issued_total{type="agent"} 1',
    'assay_svids_issued_total{type="x509-ca"} 1',
    'assay_svids_refused_total{type="jwt",reason="key-manager-down"} 1',
  ])
})

test('meteredAuthority() counts SVIDs of workloads by namespace where that is wanted', async () => {
  const lines = await counted(new Namespaces())
  assert.deepEqual(
    lines.filter((line) => line.startsWith('assay_namespace')),
    ['assay_namespace_svids_issued_total{namespace="web",type="x509"} 1'],
  )
})
