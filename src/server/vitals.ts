import type { Clock } from '#base/clock.ts'
import { messageOf } from '#base/errors.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { CheckResult, Health } from '#telemetry/health.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import type { AuthorityManager } from './authority/authority-manager.ts'
import type { BundleCache } from './bundle/bundle-cache.ts'
import type { Datastore } from './datastore/datastore.ts'
import type { AuthorizedEntries } from './entry/authorized-entries.ts'
import type { NodeCache } from './node/node-cache.ts'
import type { NodeHoldings } from './node/node-holdings.ts'
import type { KeyManager } from './plugin/key-manager/key-manager.ts'
import type { ServerSvid } from './svid/server-svid.ts'

/** The parts of a server that can be unwell. */
export interface Vitals {
  readonly authorities: Pick<
    AuthorityManager,
    'health' | 'states' | 'upstream' | 'rotations' | 'bundleSequenceNumber' | 'hybridAuthorities'
  >
  readonly holdings: Pick<NodeHoldings, 'survey' | 'pqProgress'>
  readonly bundles: Pick<BundleCache, 'size'>
  readonly entries: Pick<AuthorizedEntries, 'size'>
  readonly keyManager: Pick<KeyManager, 'status' | 'activity'>
  readonly nodes: Pick<NodeCache, 'size'>
  readonly serverSvid: Pick<ServerSvid, 'current'>
  readonly datastore: Pick<Datastore, 'revision'>
  readonly probe: DatastoreProbe
}

const well: CheckResult = { live: true, ready: true }
const notReady = (detail: string): CheckResult => ({ live: true, ready: false, detail })

/** None of these troubles is one a restart would cure, so that none makes the server not live. */
export function registerHealth(health: Health, vitals: Vitals): void {
  health.register('datastore', () => {
    vitals.probe.look()
    return vitals.probe.failure === '' ? well : notReady(vitals.probe.failure)
  })
  health.register('key-manager', () => {
    const { state, detail } = vitals.keyManager.status()
    if (state === 'ok') return well
    return { ...notReady(`${state}: ${detail}`), ready: state === 'degraded' }
  })
  health.register('authorities', () => {
    const { healthy, detail } = vitals.authorities.health()
    return healthy ? well : notReady(detail)
  })
  if (vitals.authorities.upstream() !== undefined) {
    // What is signed now is good; it is the time to come that needs somebody.
    health.register('upstream-authority', () => {
      const detail = vitals.authorities.upstream()?.problem
      return detail === undefined ? well : { ...well, detail }
    })
  }
  health.register('server-svid', () =>
    vitals.serverSvid.current() === undefined ? notReady('the server has no SVID yet') : well,
  )
}

/** Gauges that are read when somebody asks. */
export function registerMetrics(metrics: Metrics, vitals: Vitals): void {
  metrics.beforeReading(() => {
    metrics.cacheEntries('entries', vitals.entries.size)
    metrics.cacheEntries('nodes', vitals.nodes.size)
    metrics.cacheEntries('bundles', vitals.bundles.size)
    metrics.keyManagerState(vitals.keyManager.status().state)
    for (const hsm of vitals.keyManager.activity?.() ?? []) metrics.hsm(hsm)
    metrics.datastoreRevision(vitals.datastore.revision())
    const { live, lacking, away } = vitals.holdings.survey(
      vitals.authorities.bundleSequenceNumber(),
    )
    metrics.nodes({ current: live - lacking.length, lacking: lacking.length, away })
    const pq = vitals.holdings.pqProgress(new Set(vitals.authorities.hybridAuthorities().keys()))
    metrics.pqMigration('nodes', { all: pq.nodes, hybrid: pq.verifiedNodes })
    metrics.pqMigration('connections', { all: pq.nodes, hybrid: pq.hybridConnections })
    metrics.pqMigration('svids', { all: pq.svids, hybrid: pq.hybridSvids })
    const rotations = vitals.authorities.rotations()
    for (const kind of ['x509', 'jwt'] as const) {
      metrics.rotations(kind, rotations.filter((one) => one.kind === kind).length)
    }
    const active = (kind: 'x509' | 'jwt') =>
      vitals.authorities.states(kind).find(({ state }) => state === 'active')
    const inUse = [
      ['x509-ca', active('x509')],
      ['jwt-key', active('jwt')],
      ['server-svid', vitals.serverSvid.current()],
    ] as const
    for (const [what, one] of inUse) {
      metrics.expiry(what, one?.expiresAtSeconds)
      metrics.issued(what, one?.issuedAtSeconds)
    }
    metrics.expiry('upstream-ca', vitals.authorities.upstream()?.endSeconds)
  })
}

const probeInterval = Temporal.Duration.from({ seconds: 10 })

/** As old may an answer be for somebody who asks how the server is. */
const freshMs = 1000

/**
 * Reads from the datastore now and then, so that its trouble shows before somebody needs it: every ten seconds, and every
 * second while somebody watches.
 */
export class DatastoreProbe {
  readonly #dependencies: {
    readonly datastore: Pick<Datastore, 'bundle'>
    readonly trustDomain: TrustDomain
    readonly clock: Clock
    readonly metrics: Metrics
  }
  #failure = ''
  #askedAtMs = Number.NEGATIVE_INFINITY
  #isAsking = false

  constructor(dependencies: {
    readonly datastore: Pick<Datastore, 'bundle'>
    readonly trustDomain: TrustDomain
    readonly clock: Clock
    readonly metrics: Metrics
  }) {
    this.#dependencies = dependencies
  }

  /** Why the last read failed; empty when it did not. */
  get failure(): string {
    return this.#failure
  }

  /** Reads anew unless that was done within the last second; the next one who asks has the answer. */
  look(): void {
    const nowMs = this.#nowMs()
    const isFresh = nowMs >= this.#askedAtMs && nowMs < this.#askedAtMs + freshMs
    // It keeps what went wrong for itself.
    if (!isFresh) void this.#read()
  }

  async run(signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#read()
      await this.#dependencies.clock.sleep(probeInterval, signal)
    }
  }

  async #read(): Promise<void> {
    if (this.#isAsking) return
    const { datastore, trustDomain, metrics } = this.#dependencies
    this.#isAsking = true
    this.#askedAtMs = this.#nowMs()
    try {
      await datastore.bundle(trustDomain)
      this.#failure = ''
    } catch (error) {
      this.#failure = messageOf(error)
    } finally {
      this.#isAsking = false
    }
    metrics.datastoreUp(this.#failure === '')
  }

  #nowMs(): number {
    return this.#dependencies.clock.now().epochMilliseconds
  }
}
