import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nextTurn } from '#base/event-loop.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { Health } from '#telemetry/health.ts'
import { Metrics } from '#telemetry/metrics.ts'
import { memoryDatastore } from '../../test/support/memory-datastore.ts'
import { agentId } from '../../test/support/records.ts'
import type { KeyManagerStatus } from './plugin/key-manager/key-manager.ts'
import { DatastoreProbe, registerHealth, registerMetrics, type Vitals } from './vitals.ts'

const trustDomain = parseTrustDomain('example.org')

/** The vitals of a server that is well, but for what a test makes otherwise. */
function vitalsOf(changes: Partial<Vitals> = {}) {
  const clock = new FakeClock()
  const metrics = new Metrics()
  const datastore = memoryDatastore()
  const health = new Health()
  const vitals: Vitals = {
    holdings: {
      survey: () => ({ live: 3, lacking: [agentId('a')], away: 2 }),
      pqProgress: () => ({
        nodes: 3,
        verifiedNodes: 1,
        hybridConnections: 2,
        svids: 9,
        hybridSvids: 4,
      }),
    },
    authorities: {
      health: () => ({ healthy: true, canIssue: true, detail: '' }),
      states: () => [],
      upstream: () => undefined,
      rotations: () => [
        {
          kind: 'jwt' as const,
          rotation: { predecessorId: 'a', startedAtSeconds: 1, retire: false },
        },
      ],
      bundleSequenceNumber: () => 3n,
      hybridAuthorities: () => new Map(),
    },
    bundles: { size: 1 },
    entries: { size: 2 },
    nodes: { size: 3 },
    keyManager: { status: () => ({ state: 'ok', detail: '', where: 'memory' }) },
    serverSvid: { current: () => undefined },
    datastore,
    probe: new DatastoreProbe({ datastore, trustDomain, clock, metrics }),
    ...changes,
  }
  registerHealth(health, vitals)
  registerMetrics(metrics, vitals)
  return { clock, metrics, datastore, health, vitals }
}

for (const [state, ready] of [
  ['ok', true],
  ['degraded', true],
  ['down', false],
  ['refused', false],
] as const) {
  test(`registerHealth() makes a server whose key manager is ${state} ${ready ? '' : 'not '}ready, never dead`, () => {
    const status: KeyManagerStatus = { state, detail: 'token gone', where: 'pkcs11' }
    const { health } = vitalsOf({ keyManager: { status: () => status } })
    const { live, checks } = health.report()
    assert.equal(live, true)
    assert.equal(checks['key-manager']?.ready, ready)
    if (state !== 'ok') assert.match(checks['key-manager']?.detail ?? '', /token gone/)
  })
}

test('registerHealth() tells of a server without an SVID, and of authorities that do not rotate', () => {
  const { health } = vitalsOf({
    authorities: {
      health: () => ({ healthy: false, canIssue: true, detail: 'no round' }),
      states: () => [],
      upstream: () => undefined,
      rotations: () => [
        {
          kind: 'jwt' as const,
          rotation: { predecessorId: 'a', startedAtSeconds: 1, retire: false },
        },
      ],
      bundleSequenceNumber: () => 3n,
      hybridAuthorities: () => new Map(),
    },
  })
  const { ready, checks } = health.report()
  assert.equal(ready, false)
  assert.equal(checks['authorities']?.detail, 'no round')
  assert.equal(checks['server-svid']?.ready, false)
})

test('DatastoreProbe notices that the datastore fails, and that it works again', async () => {
  const { clock, metrics, datastore, health, vitals } = vitalsOf()
  let broken = true
  const read = datastore.bundle.bind(datastore)
  datastore.bundle = (name) => (broken ? Promise.reject(new Error('disk I/O error')) : read(name))
  const stop = new AbortController()
  const running = vitals.probe.run(stop.signal)
  while (clock.sleeping === 0) await nextTurn()
  assert.deepEqual(health.report().checks['datastore'], {
    live: true,
    ready: false,
    detail: 'disk I/O error',
  })
  assert.match(await metrics.exposition(), /^assay_datastore_up 0$/m)
  broken = false
  await clock.advance(Temporal.Duration.from({ seconds: 10 }))
  while (clock.sleeping === 0) await nextTurn()
  assert.equal(health.report().checks['datastore']?.ready, true)
  stop.abort(new Error('stop'))
  await assert.rejects(running, /stop/)
})

test('DatastoreProbe reads anew for who asks how the server is, once a second at most', async () => {
  const { clock, datastore, health } = vitalsOf()
  let reads = 0
  datastore.bundle = () => {
    reads += 1
    return Promise.reject(new Error('disk I/O error'))
  }
  const ready = async (): Promise<boolean | undefined> => {
    const { ready } = health.report().checks['datastore'] ?? {}
    await nextTurn()
    return ready
  }
  assert.deepEqual([await ready(), await ready(), await ready()], [true, false, false])
  assert.equal(reads, 1)
  await clock.advance(Temporal.Duration.from({ seconds: 1 }))
  await ready()
  await ready()
  assert.equal(reads, 2)
})

test('registerMetrics() sets gauges when they are read', async () => {
  const { metrics } = vitalsOf()
  const text = await metrics.exposition()
  assert.match(text, /^assay_cache_entries\{cache="nodes"\} 3$/m)
  assert.match(text, /^assay_key_manager_state\{state="ok"\} 1$/m)
  assert.match(text, /^assay_nodes\{state="current"\} 2$/m)
  assert.match(text, /^assay_nodes\{state="lacking"\} 1$/m)
  assert.match(text, /^assay_nodes\{state="away"\} 2$/m)
  assert.match(text, /^assay_rotations\{kind="jwt"\} 1$/m)
  assert.match(text, /^assay_pq_migration\{what="nodes",state="hybrid"\} 1$/m)
  assert.match(text, /^assay_pq_migration\{what="connections",state="classical"\} 1$/m)
  assert.match(text, /^assay_pq_migration\{what="svids",state="classical"\} 5$/m)
  assert.match(text, /^assay_rotations\{kind="x509"\} 0$/m)
})
