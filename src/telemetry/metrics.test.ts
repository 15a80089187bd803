import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Metrics } from './metrics.ts'

test('Metrics.exposition() has what was recorded, under the released names', async () => {
  const metrics = new Metrics()
  metrics.buildInfo({ program: 'server', version: '1', trustDomain: 'a.org' })
  metrics.rpc({ service: 'svid', method: 'NewJWTSVID', code: 'OK' }, 0.003)
  metrics.authorizationDenied({ method: 'GetAgent', reason: 'agent-banned' })
  metrics.attestation({ kind: 'node', attestor: 'tpm', outcome: 'refused', reason: 'ek-unknown' })
  metrics.svidIssued('x509', 10)
  metrics.svidRefused('jwt', 'ttl')
  metrics.cacheEntries('entries', 7)
  metrics.datastoreUp(true)
  metrics.datastoreFailure('datastore-full')
  metrics.keyManagerState('down')
  metrics.expiry('x509-ca', 1_800_000_000)
  metrics.serverReachable(false)
  metrics.issued('jwt-key', 1_700_000_000)
  metrics.lastSync(1_750_000_000)
  metrics.clockOffset(-1.5)
  metrics.reportState('taken')
  metrics.namespaceSvidIssued('web', 'jwt')
  metrics.beforeReading(() => metrics.datastoreRevision(42))
  const lines = (await metrics.exposition()).split('\n')
  for (const line of [
    'assay_build_info{program="server",version="1",trust_domain="a.org"} 1',
    'assay_rpc_duration_seconds_bucket{le="0.005",service="svid",method="NewJWTSVID",code="OK"} 1',
    'assay_rpc_duration_seconds_bucket{le="0.0025",service="svid",method="NewJWTSVID",code="OK"} 0',
    'assay_authorization_denied_total{method="GetAgent",reason="agent-banned"} 1',
    'assay_attestations_total{kind="node",attestor="tpm",outcome="refused",reason="ek-unknown"} 1',
    'assay_svids_issued_total{type="x509"} 10',
    'assay_svids_refused_total{type="jwt",reason="ttl"} 1',
    'assay_cache_entries{cache="entries"} 7',
    'assay_datastore_up 1',
    'assay_datastore_failures_total{reason="datastore-full"} 1',
    'assay_datastore_revision 42',
    'assay_key_manager_state{state="ok"} 0',
    'assay_key_manager_state{state="down"} 1',
    'assay_expiry_timestamp_seconds{what="x509-ca"} 1800000000',
    'assay_server_reachable 0',
    'assay_rotation_timestamp_seconds{what="jwt-key"} 1700000000',
    'assay_last_sync_timestamp_seconds 1750000000',
    'assay_clock_offset_seconds -1.5',
    'assay_report_state{state="none"} 0',
    'assay_report_state{state="taken"} 1',
    'assay_namespace_svids_issued_total{namespace="web",type="jwt"} 1',
  ]) {
    assert.ok(lines.includes(line), line)
  }
})

test('Metrics shows nothing that nobody has measured, and nothing that is gone', async () => {
  const metrics = new Metrics()
  assert.doesNotMatch(await metrics.exposition(), /^assay_/m)
  metrics.expiry('workload-svid', 1)
  metrics.namespaceEntries(new Map([['web', 2]]))
  assert.match(await metrics.exposition(), /^assay_namespace_entries\{namespace="web"\} 2$/m)
  metrics.expiry('workload-svid', undefined)
  metrics.namespaceEntries(new Map())
  assert.doesNotMatch(await metrics.exposition(), /^assay_/m)
})

test('Metrics.stream() and rpcInFlight() count down once, however often they are disposed', async () => {
  const metrics = new Metrics()
  using first = metrics.stream('feed')
  using second = metrics.stream('feed')
  using call = metrics.rpcInFlight('svid')
  first[Symbol.dispose]()
  first[Symbol.dispose]()
  assert.match(await metrics.exposition(), /^assay_streams\{kind="feed"\} 1$/m)
  assert.match(await metrics.exposition(), /^assay_rpc_in_flight\{service="svid"\} 1$/m)
  second[Symbol.dispose]()
  call[Symbol.dispose]()
  assert.match(await metrics.exposition(), /^assay_streams\{kind="feed"\} 0$/m)
  assert.match(await metrics.exposition(), /^assay_rpc_in_flight\{service="svid"\} 0$/m)
})

test('Metrics of two processes in one program do not mix', async () => {
  const one = new Metrics()
  const two = new Metrics()
  one.svidIssued('jwt')
  assert.doesNotMatch(await two.exposition(), /assay_svids_issued_total\{/)
})
