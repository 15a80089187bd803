import { AssayError } from '#base/errors.ts'
import { runTasks } from '#base/tasks.ts'
import { version } from '#base/version.ts'
import { changedKeys } from '#config/changed-keys.ts'
import type { Daemon, DaemonProcess } from '#daemon/daemon.ts'
import { pingWatchdog } from '#daemon/watchdog.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { type MlDsaParameterSet, parseMlDsaPublicKey } from '#pq-crypto/ml-dsa.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { pqBundle } from '#spiffe/pq-bundle.ts'
import { Health } from '#telemetry/health.ts'
import { Metrics } from '#telemetry/metrics.ts'
import { WorkloadAttestation } from './attestation/workload-attestation.ts'
import { TrustAnchor } from './bootstrap/trust-anchor.ts'
import type { BootstrapSource } from './bootstrap/trust-bundle.ts'
import { openNodeAttestor, openWorkloadAttestors } from './catalog/built-ins.ts'
import { type AgentConfig, configWarnings, liveKeys } from './config.ts'
import { openEndpoints } from './endpoints.ts'
import { Identities } from './manager/identities.ts'
import { Reporter } from './manager/reporter.ts'
import { Membership } from './membership.ts'
import { ServerClient } from './server-client/server-client.ts'
import { AgentStatus } from './status.ts'
import { statusText } from './status-text.ts'
import { AgentStorage } from './storage/agent-storage.ts'
import { Refusals } from './workload-api/refusals.ts'

/** What an agent gets from the process it runs in. */
export interface AgentProcess extends DaemonProcess {
  /** Sockets that systemd opened, by name. */
  readonly activated: ReadonlyMap<string, readonly number[]>
}

/** Why an agent has ended. */
export type AgentEnd = 'stopped' | 'banned'

/** Everything of an agent that outlives its start. */
interface Parts {
  /** As it was at the start. */
  readonly config: AgentConfig
  readonly attestation: WorkloadAttestation
  readonly process: AgentProcess
  readonly anchor: TrustAnchor
  readonly identities: Identities
  readonly membership: Membership
  readonly status: AgentStatus
  readonly health: Health
  readonly metricsPort: number | undefined
}

/** The agent of one node: opened by {@link Agent.open}, then {@link run} until it is told to stop. */
export class Agent implements Daemon<AgentConfig, AgentEnd> {
  readonly #parts: Parts
  readonly #resources: AsyncDisposableStack

  private constructor(parts: Parts, resources: AsyncDisposableStack) {
    this.#parts = parts
    this.#resources = resources
  }

  /**
   * Opens the sockets: from then on workloads get an answer, if only that the agent is not ready yet.
   *
   * @throws AssayError `failed-precondition` when an operator has to act first.
   */
  static async open(config: AgentConfig, process: AgentProcess): Promise<Agent> {
    await using resources = new AsyncDisposableStack()
    for (const warning of configWarnings(config)) process.log.warn({}, warning)
    const parts = await openParts(config, process, resources)
    return new Agent(parts, resources.move())
  }

  /** The port of the metrics, if there are any. */
  get metricsPort(): number | undefined {
    return this.#parts.metricsPort
  }

  /**
   * Takes over what may change while the agent runs, {@link liveKeys}, and returns the other keys that have changed
   * since the start: those need a restart. The log's level is the caller's.
   */
  reload(config: AgentConfig): readonly string[] {
    const { attestation, anchor, identities, process } = this.#parts
    for (const warning of configWarnings(config)) process.log.warn({}, warning)
    anchor.readAgain(bootstrapSource(config))
    attestation.attestors = workloadAttestors(config, { process, identities })
    return changedKeys(this.#parts.config, config).filter((key) => !liveKeys.includes(key))
  }

  /** Serves until `signal` aborts, or the server bans the node. */
  async run(signal: AbortSignal): Promise<AgentEnd> {
    const { identities, membership, status, health, process } = this.#parts
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
          await membership.keep(s)
          end = 'banned'
          stop.abort(new AssayError('permission-denied', 'the node is banned'))
        },
        (s) => identities.run(s),
        (s) => pingWatchdog({ ...process, health, onPing: () => this.#tellStatus() }, s),
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

  #tellStatus(): void {
    const { status, identities, membership, process } = this.#parts
    const { state, detail, agentId, streams } = status
    const { renewsAtMs } = membership
    const nowMs = process.clock.now().epochMilliseconds
    process.notifier.status(
      statusText({
        state,
        detail,
        agentId,
        streams,
        entries: identities.counts.entries,
        renewsInSeconds: renewsAtMs === undefined ? undefined : (renewsAtMs - nowMs) / 1000,
      }),
    )
  }
}

async function openParts(
  config: AgentConfig,
  process: AgentProcess,
  resources: AsyncDisposableStack,
): Promise<Parts> {
  const { clock, random, log, monotonicMs, activated } = process
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
      heldSequence: () => identities.bundles.own?.sequenceNumber ?? 0n,
      issuerIdOf: (chain) =>
        identities.bundles.issuerIdOf(chain, Math.trunc(clock.now().epochMilliseconds / 1000)),
      requirePqKem: config.require_pq_kem,
      pqPolicy: config.pq_policy,
      profile: config.crypto_profile,
      onConnected: (group) => {
        metrics.tlsConnection(group)
        status.keyAgreement = group
      },
      onServerVerified: (pq) => {
        metrics.peerVerified(pq)
        status.serverPq = pq
      },
      workloadKeyType: config.workload_x509_svid_key_type,
      pqParameterSet: () => newestParameterSet(identities.ownBundle),
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
      membership.authoritiesChanged()
    },
    onHoldings: () => reporter.changed(),
    x509SvidCacheMaxSize: config.x509_svid_cache_max_size,
    jwtSvidCacheMaxSize: config.jwt_svid_cache_max_size,
    clock,
    random,
    log: log.child({ component: 'manager' }),
  })
  const reporter: Reporter = new Reporter({
    holdings: () => identities.holdings(client.ownSvid()),
    send: (holdings, signal) => client.report(holdings, signal),
    clock,
    random,
    log: log.child({ component: 'manager' }),
  })
  const nodeAttestor = openNodeAttestor(config, process)
  const membership: Membership = new Membership({
    config,
    storage,
    anchor,
    nodeAttestor,
    client,
    identities,
    reporter,
    status,
    metrics,
    monotonicMs,
    clock,
    random,
    log,
  })
  const attestation = new WorkloadAttestation({
    attestors: workloadAttestors(config, { process, identities }),
    metrics,
    log: log.child({ component: 'attestation' }),
  })
  const metricsPort = await openEndpoints(config, {
    resources,
    identities,
    attestation,
    nodeAttestor,
    reporter,
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
    attestation,
    process,
    anchor,
    identities,
    membership,
    status,
    health,
    metricsPort,
  }
}

/** Of the newest post-quantum authority: what the trust domain is going over to. */
function newestParameterSet(own: Bundle | undefined): MlDsaParameterSet {
  const newest = own && pqBundle(own).x509Authorities.at(-1)
  if (newest === undefined) return 'ml-dsa-44'
  return parseMlDsaPublicKey(parseCertificate(newest.certificate).publicKey).parameterSet
}

const workloadAttestors = (
  config: AgentConfig,
  { process, identities }: Pick<Parts, 'process' | 'identities'>,
) => openWorkloadAttestors(config, { ...process, usesProgram: () => identities.usesProgram })

function bootstrapSource(config: AgentConfig): BootstrapSource {
  const { trust_bundle_path: path, trust_bundle_url: url, trust_bundle_format: format } = config
  if (path !== undefined) return { kind: 'path', path, format }
  if (url !== undefined) return { kind: 'url', url, format }
  return { kind: 'insecure' }
}
