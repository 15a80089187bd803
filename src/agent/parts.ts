import { version } from '#base/version.ts'
import type { DaemonProcess } from '#daemon/daemon.ts'
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
import type { AgentConfig } from './config.ts'
import { openEndpoints } from './endpoints.ts'
import { Identities } from './manager/identities.ts'
import { Reporter } from './manager/reporter.ts'
import { Membership } from './membership.ts'
import { ServerClient } from './server-client/server-client.ts'
import { AgentStatus } from './status.ts'
import { AgentStorage } from './storage/agent-storage.ts'
import { Refusals } from './workload-api/refusals.ts'

/** What an agent gets from the process it runs in. */
export interface AgentProcess extends DaemonProcess {
  /** Sockets that systemd opened, by name. */
  readonly activated: ReadonlyMap<string, readonly number[]>
}

/** Everything of an agent that outlives its start. */
export interface Parts {
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

/**
 * Opens what the configuration names, and its sockets last.
 *
 * @throws AssayError `failed-precondition` when an operator has to act first.
 */
export async function openParts(
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

/** As the configuration names them; read again at a reload. */
export const workloadAttestors = (
  config: AgentConfig,
  { process, identities }: Pick<Parts, 'process' | 'identities'>,
) => openWorkloadAttestors(config, { ...process, usesProgram: () => identities.usesProgram })

/** What the server is recognised by at the first contact. */
export function bootstrapSource(config: AgentConfig): BootstrapSource {
  const { trust_bundle_path: path, trust_bundle_url: url, trust_bundle_format: format } = config
  if (path !== undefined) return { kind: 'path', path, format }
  if (url !== undefined) return { kind: 'url', url, format }
  return { kind: 'insecure' }
}
