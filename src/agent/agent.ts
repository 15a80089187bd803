import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { runTasks } from '#base/tasks.ts'
import { version } from '#base/version.ts'
import type { Notifier } from '#host/notify.ts'
import { trustDomainOf } from '#spiffe/spiffe-id.ts'
import { Health } from '#telemetry/health.ts'
import type { ProcessLog } from '#telemetry/log.ts'
import { Metrics } from '#telemetry/metrics.ts'
import { WorkloadAttestation } from './attestation/workload-attestation.ts'
import { TrustAnchor } from './bootstrap/trust-anchor.ts'
import type { BootstrapSource } from './bootstrap/trust-bundle.ts'
import { openNodeAttestor, openWorkloadAttestors } from './catalog/built-ins.ts'
import { type AgentConfig, configWarnings } from './config.ts'
import { openEndpoints } from './endpoints.ts'
import { AgentSvid } from './manager/agent-svid.ts'
import { Identities } from './manager/identities.ts'
import { explainServerError } from './manager/server-errors.ts'
import { followServer, type SyncEnd, syncEndOf } from './manager/sync.ts'
import type { NodeAttestor } from './plugin/node-attestor/node-attestor.ts'
import type { AgentIdentity } from './server-client/agent-identity.ts'
import { ServerClient } from './server-client/server-client.ts'
import { AgentStatus } from './status.ts'
import { AgentStorage } from './storage/agent-storage.ts'
import { Refusals } from './workload-api/refusals.ts'

/** What an agent gets from the process it runs in. */
export interface AgentProcess {
  readonly clock: Clock
  readonly random: Random
  readonly log: ProcessLog
  readonly notifier: Notifier
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  /** Sockets that systemd opened, by name. */
  readonly activated: ReadonlyMap<string, readonly number[]>
}

/** Why an agent has ended. */
export type AgentEnd = 'stopped' | 'banned'

/** Everything of an agent that outlives its start. */
interface Parts {
  readonly config: AgentConfig
  readonly process: AgentProcess
  readonly storage: AgentStorage
  readonly anchor: TrustAnchor
  readonly nodeAttestor: NodeAttestor
  readonly client: ServerClient
  readonly identities: Identities
  readonly status: AgentStatus
  readonly metrics: Metrics
  readonly health: Health
}

/** A node that proves itself again and again in vain asks less and less often. */
const firstRetry = Temporal.Duration.from({ milliseconds: 500 })
const longestRetry = Temporal.Duration.from({ seconds: 30 })

/** The agent of one node: opened by {@link Agent.open}, then {@link run} until it is told to stop. */
export class Agent implements AsyncDisposable {
  readonly #parts: Parts
  readonly #resources: AsyncDisposableStack
  readonly #svid: AgentSvid

  private constructor(parts: Parts, resources: AsyncDisposableStack) {
    this.#parts = parts
    this.#resources = resources
    const { client, nodeAttestor, process } = parts
    this.#svid = new AgentSvid({
      renew: async (current, signal) =>
        current.canReattest
          ? (await client.attest(nodeAttestor, signal)).identity
          : client.renew(current, signal),
      onRenewed: (identity) => this.#become(identity),
      clock: process.clock,
      random: process.random,
      log: process.log,
    })
  }

  /**
   * Opens the sockets: from then on workloads get an answer, if only that the agent is not ready yet.
   *
   * @throws AssayError `failed-precondition` when an operator has to act first.
   */
  static async open(config: AgentConfig, process: AgentProcess): Promise<Agent> {
    await using resources = new AsyncDisposableStack()
    for (const warning of configWarnings(config)) process.log.warn({}, warning)
    let agent: Agent | undefined
    const parts = await openParts(config, process, {
      resources,
      // The signer of the agent's own SVID may have been tainted.
      onOwnBundle: () => agent?.renewIfTainted(),
    })
    agent = new Agent(parts, resources.move())
    return agent
  }

  /** Serves until `signal` aborts, or the server bans the node. */
  async run(signal: AbortSignal): Promise<AgentEnd> {
    const { identities, status, process } = this.#parts
    const { notifier, log } = process
    using _status = status.onChange(() => this.#tellStatus())
    this.#tellStatus()
    notifier.ready()
    let end: AgentEnd = 'stopped'
    const stop = new AbortController()
    const linked = AbortSignal.any([signal, stop.signal])
    try {
      await runTasks(linked, [
        async (s) => {
          await this.#live(s)
          end = 'banned'
          stop.abort(new AssayError('permission-denied', 'the node is banned'))
        },
        (s) => identities.run(s),
        (s) => this.#pingWatchdog(s),
      ])
    } finally {
      notifier.stopping()
      log.info({}, 'stopping')
    }
    return end
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync()
    await this.#parts.anchor.saved()
  }

  renewIfTainted(): void {
    const { status, identities, client } = this.#parts
    if (status.agentSvid.length === 0) return
    const trust = client.trustOfOwnSvid((id) => identities.bundles.trustOf(id))
    if (trust === 'tainted') this.#svid.renewNow()
  }

  /** Proves the node, follows the server, and does so again whenever the server asks for it. Ends when banned. */
  async #live(signal: AbortSignal): Promise<void> {
    const { client, identities, process } = this.#parts
    const backoff = this.#newBackoff()
    let identity = await this.#storedIdentity()
    if (identity !== undefined) await this.#untilTrustIsKnown(signal)
    for (;;) {
      identity ??= await this.#attest(signal)
      if (identity === undefined) break
      await this.#become(identity)
      const startMs = process.monotonicMs()
      const end = await this.#follow(identity, signal)
      if (end === 'banned') break
      process.log.warn(
        { spiffeId: identity.spiffeId },
        'the server wants this node to prove itself again',
      )
      identity = undefined
      client.setIdentity(undefined)
      await this.#parts.storage.deleteIdentity()
      if (process.monotonicMs() - startMs > 60_000) backoff.reset()
      await process.clock.sleep(backoff.next(), signal)
    }
    this.#parts.status.enter('stopped', 'the server has banned this node')
    identities.clear()
    client.setIdentity(undefined)
    await this.#parts.storage.deleteIdentity()
    process.log.error(
      {},
      'the server has banned this node: no identity is served any more; an administrator of the server can lift the ban',
    )
  }

  /** Until the server says that there is no use in going on. */
  async #follow(identity: AgentIdentity, signal: AbortSignal): Promise<SyncEnd> {
    const { client, identities, status, metrics, process } = this.#parts
    const { clock, random, log } = process
    const stop = new AbortController()
    let end: SyncEnd = 'must-reattest'
    const ended = (why: SyncEnd): void => {
      // The first to say so is the one who knows.
      if (!stop.signal.aborted) end = why
      stop.abort(new AssayError('unavailable', why))
    }
    const watch = (s: AbortSignal) => client.watch(s)
    await runTasks(AbortSignal.any([signal, stop.signal]), [
      async (s) =>
        ended(await followServer({ watch, identities, status, metrics, clock, random, log }, s)),
      async (s) => ended(await this.#svid.keep(identity, s)),
    ])
    signal.throwIfAborted()
    return end
  }

  /** Tries until it succeeds. Undefined: the server has banned the node. */
  async #attest(signal: AbortSignal): Promise<AgentIdentity | undefined> {
    const { anchor, client, nodeAttestor, status, process } = this.#parts
    const backoff = this.#newBackoff()
    status.enter('attesting', status.detail)
    for (;;) {
      try {
        await anchor.prepare(signal)
        const { identity, bundle } = await client.attest(nodeAttestor, signal)
        anchor.learn(bundle)
        process.log.info(
          { spiffeId: identity.spiffeId, attestor: nodeAttestor.type },
          'the node is attested',
        )
        return identity
      } catch (error) {
        signal.throwIfAborted()
        if (syncEndOf(error) === 'banned') return undefined
        const wait = backoff.next()
        const why = explainServerError(error)
        status.enter('attesting', why)
        process.log.warn(
          { error: why, ...(error instanceof AssayError && { reason: error.reason }) },
          `the node is not attested yet; trying again in ${wait.total('seconds').toFixed(1)} s`,
        )
        await process.clock.sleep(wait, signal)
      }
    }
  }

  /** Acts as `identity` from now on. Only one that cannot be had again is written down. */
  async #become(identity: AgentIdentity): Promise<void> {
    const { client, status, metrics, storage, process } = this.#parts
    if (!identity.canReattest) {
      try {
        await storage.saveIdentity(identity)
      } catch (error) {
        process.log.error(
          { error: messageOf(error) },
          'cannot keep the agent’s identity: after a restart the node needs a new join token',
        )
      }
    }
    client.setIdentity(identity)
    status.agentId = identity.spiffeId
    status.agentSvid = identity.certificates
    status.agentSvidExpiresAtSeconds = identity.expiresAtSeconds
    metrics.expiry('agent-svid', identity.expiresAtSeconds)
  }

  async #loadIdentity(): Promise<AgentIdentity | undefined> {
    const { storage, process } = this.#parts
    try {
      return await storage.loadIdentity()
    } catch (error) {
      // A file that others can read is for an operator to look at; a damaged one is good for nothing.
      if (error instanceof AssayError && error.code === 'failed-precondition') throw error
      process.log.error({ error }, 'the kept agent SVID is damaged and is passed over')
      return undefined
    }
  }

  /** What a node that can prove itself only once has kept, as long as it is of use. */
  async #storedIdentity(): Promise<AgentIdentity | undefined> {
    const { config, process } = this.#parts
    const stored = await this.#loadIdentity()
    if (stored === undefined) return undefined
    const nowSeconds = process.clock.now().epochMilliseconds / 1000
    const problem =
      trustDomainOf(stored.spiffeId) !== config.trust_domain
        ? 'it is of another trust domain'
        : stored.expiresAtSeconds <= nowSeconds
          ? 'it has expired'
          : undefined
    if (problem !== undefined) {
      process.log.warn(
        { spiffeId: stored.spiffeId },
        `the kept agent SVID cannot be used: ${problem}`,
      )
      return undefined
    }
    return stored
  }

  /** A node that need not attest has still to know what its server is recognised by. */
  async #untilTrustIsKnown(signal: AbortSignal): Promise<void> {
    const { anchor, status, process } = this.#parts
    const backoff = this.#newBackoff()
    for (;;) {
      try {
        await anchor.prepare(signal)
        return
      } catch (error) {
        signal.throwIfAborted()
        status.enter('starting', messageOf(error))
        process.log.error(
          { error: messageOf(error) },
          'cannot tell the server from others; trying again',
        )
        await process.clock.sleep(backoff.next(), signal)
      }
    }
  }

  /** A ping says that the event loop turns. */
  async #pingWatchdog(signal: AbortSignal): Promise<void> {
    const { clock, notifier } = this.#parts.process
    const { watchdogIntervalMs } = notifier
    if (watchdogIntervalMs === undefined) return
    const interval = Temporal.Duration.from({ milliseconds: Math.floor(watchdogIntervalMs) })
    for (;;) {
      if (this.#parts.health.report().live) notifier.watchdog()
      await clock.sleep(interval, signal)
    }
  }

  #tellStatus(): void {
    const { status, identities, process } = this.#parts
    const { state, detail, agentId = 'not attested' } = status
    const { entries } = identities.counts
    const why = detail === '' ? '' : ` (${detail})`
    process.notifier.status(`${state}${why}, ${agentId}, ${entries} entries`)
  }

  #newBackoff(): Backoff {
    const { random } = this.#parts.process
    return new Backoff({ first: firstRetry, longest: longestRetry, random })
  }
}

async function openParts(
  config: AgentConfig,
  process: AgentProcess,
  options: { readonly resources: AsyncDisposableStack; readonly onOwnBundle: () => void },
): Promise<Parts> {
  const { clock, random, log, monotonicMs, activated } = process
  const { resources } = options
  const trustDomain = config.trust_domain
  const storage = await AgentStorage.open(config.data_dir, { random })
  const anchor = new TrustAnchor({
    trustDomain,
    source: bootstrapSource(config),
    storage,
    clock,
    log,
  })
  const status = new AgentStatus()
  const health = new Health()
  const metrics = new Metrics({ processMetrics: true })
  metrics.buildInfo({ program: 'agent', version, trustDomain })
  const client: ServerClient = resources.use(
    new ServerClient({
      host: config.server_address,
      port: config.server_port,
      trustDomain,
      trust: () => anchor.trust,
      issuerIdOf: (chain) =>
        identities.bundles.issuerIdOf(chain, Math.trunc(clock.now().epochMilliseconds / 1000)),
      requirePqKem: config.require_pq_kem,
      workloadKeyType: config.workload_x509_svid_key_type,
      syncInterval: Temporal.Duration.from({ seconds: config.sync_interval }),
      agentVersion: version,
      clock,
      random,
      log: log.child({ component: 'server-client' }),
    }),
  )
  const identities: Identities = new Identities({
    issuer: client,
    onOwnBundle: (bundle) => {
      anchor.learn(bundle)
      options.onOwnBundle()
    },
    x509SvidCacheMaxSize: config.x509_svid_cache_max_size,
    jwtSvidCacheMaxSize: config.jwt_svid_cache_max_size,
    clock,
    random,
    log: log.child({ component: 'manager' }),
  })
  const nodeAttestor = openNodeAttestor(config, process)
  const attestation = new WorkloadAttestation({
    attestors: openWorkloadAttestors(config, {
      ...process,
      usesProgram: () => identities.usesProgram,
    }),
    metrics,
    log: log.child({ component: 'attestation' }),
  })
  await openEndpoints(config, {
    resources,
    identities,
    attestation,
    nodeAttestor,
    refusals: new Refusals(clock),
    status,
    health,
    metrics,
    activated,
    monotonicMs,
    clock,
    random,
    log,
  })
  return {
    config,
    process,
    storage,
    anchor,
    nodeAttestor,
    client,
    identities,
    status,
    metrics,
    health,
  }
}

function bootstrapSource(config: AgentConfig): BootstrapSource {
  const { trust_bundle_path: path, trust_bundle_url: url, trust_bundle_format: format } = config
  if (path !== undefined) return { kind: 'path', path, format }
  if (url !== undefined) return { kind: 'url', url, format }
  return { kind: 'insecure' }
}
