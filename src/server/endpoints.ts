import type { StrangerLimits } from '#rpc/listener.ts'
import type { PeerBounds } from '#rpc/peer-shares.ts'
import { RpcServer } from '#rpc/server.ts'
import type { TlsListener } from '#rpc/tls-listener.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import { openTelemetry, type TelemetryPorts } from '#telemetry/endpoints.ts'
import { Approvals } from './administrators/approvals.ts'
import { approving, mostNeeded } from './api/approving.ts'
import { Authorizer } from './api/authorize.ts'
import { Guard } from './api/guard.ts'
import { limiting } from './api/limits.ts'
import { RequestJudge } from './api/request-judge.ts'
import { addLocalServices, addTlsServices, type ServiceDependencies } from './api/services.ts'
import { newClientVerifier } from './client-verifier.ts'
import { LostState } from './node/lost-state.ts'
import type { Parts } from './parts.ts'

/** What callers reach a server by. */
export interface Endpoints extends TelemetryPorts {
  /** For processes on this machine. */
  readonly local: RpcServer
  /** For everybody else; it has no listener before {@link listenTls}. */
  readonly remote: RpcServer
}

/**
 * Opens the administration socket and what probes and scrapers ask, and gets ready what {@link listenTls} opens.
 *
 * @throws AssayError `failed-precondition` or `unavailable` when an address cannot be listened on.
 */
export async function openEndpoints(
  parts: Parts,
  resources: AsyncDisposableStack,
): Promise<Endpoints> {
  const { config, process, health, metrics } = parts
  const { clock, random, log } = process
  const dependencies = serviceDependencies(parts)
  const rpcLog = log.child({ component: 'rpc' })
  const local = resources.use(new RpcServer({ log: rpcLog, random, clock }))
  addLocalServices(local, dependencies)
  const remote = resources.use(new RpcServer({ log: rpcLog, random, clock }))
  addTlsServices(remote, dependencies)
  await local.listenUnix({
    path: config.socket_path,
    mode: 0o770,
    maxRequestBytes: 64 * 1024 * 1024,
    readGroups: true,
  })
  log.info({ socket: config.socket_path }, 'administration is open')
  metrics.beforeReading(() => {
    metrics.connections('administration', local.connections)
    metrics.connections('agents', remote.connections)
  })
  return { local, remote, ...(await openTelemetry(config, { health, metrics, log, resources })) }
}

/**
 * What a node needs that attests: two calls with messages of a few KiB, and the time that a wait for its turn and a
 * slow TPM take. All the requests of the strangers of one source together are bounded too, by {@link perClient}.
 */
const attestingStrangers: StrangerLimits = {
  maxConnectionsPerSource: 1024,
  maxConcurrentStreams: 2,
  maxRequestBytes: 128 * 1024,
  maxConnectionAgeMs: 180_000,
  graceMs: 10_000,
}

/**
 * What one SPIFFE ID may have under way, so that a node that was taken over leaves the others their server. Agents have
 * one or two connections and a few calls at a time; the largest request is 4 MiB. Of clients without an ID the bytes of a
 * source are bounded.
 */
const perClient: PeerBounds = {
  maxConnections: 32,
  maxCalls: 256,
  maxRequestBytes: 16 * 1024 * 1024,
}

/** Lets agents in, who are shown the server's SVID of that moment: there must be one. */
export async function listenTls(
  remote: RpcServer,
  { config, process, serverSvid, bundles, metrics, administrators }: Parts,
): Promise<TlsListener> {
  const { trust_domain: trustDomain, bind_address: address, bind_port: port } = config
  const listener = await remote.listenTls({
    address,
    port,
    identity: () => {
      const identity = serverSvid.current()
      if (identity === undefined) throw new TypeError('the server has no SVID yet')
      return { key: identity.privateKey, certificates: identity.certificates }
    },
    verifyClient: newClientVerifier({
      trustDomain,
      adminIds: () => administrators.ids,
      bundles,
      pqPolicy: config.pq_policy,
      clock: process.clock,
    }),
    requirePqKem: config.require_pq_kem,
    profile: config.crypto_profile,
    onAdmitted: ({ pq }) => pq && metrics.peerVerified(pq),
    onHandshake: (outcome) => {
      if ('group' in outcome) metrics.tlsConnection(outcome.group)
      else metrics.tlsHandshakeFailure(outcome.failure)
    },
    maxConnections: config.max_connections,
    strangers: attestingStrangers,
    perPeer: perClient,
    onExcess: (excess) => metrics.rpcExcess(excess),
    keepaliveMs: 60_000,
  })
  process.log.info({ address, port: listener.port, trustDomain }, 'agents can connect')
  return listener
}

function serviceDependencies(parts: Parts): ServiceDependencies {
  const { config, live, process, administrators, entries, nodes, bundles, datastore } = parts
  const { clock, random, log, monotonicMs } = process
  const trustDomain = config.trust_domain
  const approvals = new Approvals({ clock, random })
  parts.metrics.beforeReading(() => parts.metrics.approvalsPending(approvals.pending))
  const needsApproval = mostNeeded(config.approvals) > 1
  const guard = new Guard({ administrators, entries, needsApproval })
  return {
    ...parts,
    trustDomain,
    clock,
    random,
    log: log.child({ component: 'api' }),
    processLog: log,
    monotonicMs,
    attestorTypes: new Set(parts.attestors.keys()),
    lostState: new LostState({
      heldSequence: () => bundles.bundle(trustDomain)?.sequenceNumber ?? 0n,
      clock,
      log: log.child({ component: 'datastore' }),
    }),
    get replacementSpreadSeconds() {
      return live.replacementSpreadSeconds
    },
    svidDefaults: live.svidDefaults,
    guard,
    approvals,
    approvalsNeeded: approving({
      approvals,
      needed: config.approvals,
      judge: new RequestJudge({ guard, datastore }),
    }),
    startedAtSeconds: Math.floor(clock.now().epochMilliseconds / 1000),
    authorizer: new Authorizer({
      trustDomain,
      administrators,
      standing: {
        node: (agentId) => nodes.node(agentId),
        isAdmin: (id) => entries.isAdmin(id),
        isDownstream: (id) => entries.isDownstream(id),
      },
      datastore,
      clock,
    }),
    limits: limiting({ isOn: (limited) => live.isLimited(limited), clock }),
    onAttested: (agentId, address) => alarmElsewhere(parts, agentId, address),
  }
}

function alarmElsewhere(
  { connected, process: { log } }: Parts,
  agentId: SpiffeId,
  address: string,
): void {
  const other = connected.elsewhere(agentId, address)
  if (other === undefined) return
  log.warn(
    { spiffeId: agentId, address, connectedFrom: other },
    'a node has attested while it is connected from another address; is its secret in two places?',
  )
}
