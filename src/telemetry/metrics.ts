import Counter from 'prom-client/lib/counter.js'
import Gauge from 'prom-client/lib/gauge.js'
import Histogram from 'prom-client/lib/histogram.js'
import Registry from 'prom-client/lib/registry.js'
import { addProcessMetrics } from './process-metrics.ts'

/** Name and meaning of every metric. A name never changes once released. */
const help = {
  assay_build_info: 'Always 1; the labels say what runs.',
  assay_rpc_duration_seconds: 'How long calls took, by service, method and gRPC status.',
  assay_connections: 'Open connections, by what they are to.',
  assay_rpc_in_flight: 'Calls and streams that are being served, by service.',
  assay_rpc_excess_total:
    'Connections and calls refused because their peer had too much under way, by what there was too much of.',
  assay_authorization_denied_total: 'Calls that their caller may not make, by method and reason.',
  assay_approvals_pending: 'Calls of administrators that wait for others to agree.',
  assay_attestations_total:
    'Node and workload attestations, by kind, attestor, outcome and, where refused, reason.',
  assay_svids_issued_total: 'SVIDs signed, by type; not the server’s own.',
  assay_namespace_entries:
    'Entries by namespace, the first path segment of their SPIFFE ID; those beyond the first 50 are `other`.',
  assay_namespace_svids_issued_total: 'SVIDs signed for workloads, by namespace and type.',
  assay_svids_refused_total: 'SVIDs that were asked for and not signed, by type and reason.',
  assay_streams: 'Open streams, by kind.',
  assay_cache_entries: 'Records held in memory, by cache.',
  assay_datastore_up: '1 while the last use of the datastore succeeded.',
  assay_datastore_operations_total: 'Uses of the datastore, by operation.',
  assay_datastore_operation_duration_seconds:
    'How long uses of the datastore took, the wait for a transaction included, by operation.',
  assay_datastore_failures_total: 'Uses of the datastore that failed, by reason.',
  assay_datastore_revision: 'Revision of the last change seen.',
  assay_key_manager_state: '1 for the state the key manager is in, 0 for the others.',
  assay_nodes:
    'Attested nodes with a valid SVID: live and with the newest bundle, live and without it, or away.',
  assay_rotations: 'Rotations that an operator has asked for and that are not done, by kind.',
  assay_hsm_up: '1 while the HSM signs, by token.',
  assay_hsm_state_change_timestamp_seconds:
    'Unix time at which the state of the HSM last changed, by token.',
  assay_hsm_signatures_total: 'Signatures of the HSM that were right, by token.',
  assay_hsm_wrong_signatures_total:
    'Signatures of the HSM that did not verify and were not released, by token.',
  assay_hsm_signatures_in_flight: 'Signatures that are being waited for, by token.',
  assay_hsm_signature_duration_seconds:
    'How long a signature took, waiting for a session included, by token.',
  assay_hsm_signer_starts_total: 'Signer processes started, by token.',
  assay_hsm_recoveries_total: 'Times the token was opened anew after it had been lost, by token.',
  assay_authority_promotions_total:
    'Authorities that took over because the token of the one before was away for too long, by kind.',
  assay_expiry_timestamp_seconds: 'Unix time at which something expires, by what it is.',
  assay_rotation_timestamp_seconds:
    'Unix time at which what is in use now was issued, by what it is.',
  assay_tls_connections_total:
    'TLS connections made between agent and server, by the group their keys are from.',
  assay_peers_verified_total:
    'Certificates of the other side that were accepted, by what was found of their post-quantum signatures.',
  assay_pq_migration:
    'What live nodes have that holds out against quantum computers, and what not: nodes by the signatures of their SVIDs, connections by their key agreement, X.509-SVIDs by their authorities.',
  assay_tls_handshake_failures_total: 'TLS handshakes that failed at this server, by reason.',
  assay_log_lines_left_out_total:
    'Lines about calls and connections that were refused, and that were not written because there were too many, by kind.',
  assay_server_reachable: '1 while the agent has its stream to the server.',
  assay_last_sync_timestamp_seconds: 'Unix time of the last word of the server.',
  assay_clock_offset_seconds: 'How far the clock of the server is ahead of that of this node.',
  assay_report_state:
    '1 for what has become of the agent’s report of what it holds, 0 for the others: see the documentation.',
} as const

/** Of every metric of ours; `process_*` and `nodejs_*` come on top. */
export const metricNames = Object.keys(help) as readonly (keyof typeof help)[]

/** Seconds; from a token in memory to one that is given up. */
const signatureBuckets = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
]

/** Seconds; from an index in memory to a disk that hangs. */
const datastoreBuckets = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5]

/** Seconds; from a cached answer to a TPM's signature. */
const durationBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

const keyManagerStates = ['ok', 'degraded', 'down', 'refused'] as const
export type KeyManagerStateLabel = (typeof keyManagerStates)[number]

const reportStates = ['none', 'pending', 'taken', 'unsupported'] as const
export type ReportStateLabel = (typeof reportStates)[number]

export type SvidType = 'x509' | 'jwt' | 'agent' | 'server' | 'x509-ca'
export type StreamKind = 'feed' | 'sync' | 'x509-svid' | 'x509-bundles' | 'jwt-bundles' | 'sds'
export type CacheName = 'entries' | 'nodes' | 'bundles' | 'x509-svids' | 'jwt-svids' | 'workloads'
export type Rotating = 'x509-ca' | 'jwt-key' | 'server-svid' | 'agent-svid'
/** `workload-svid`: the first to expire of the X.509-SVIDs that an agent holds. */
export type Expiring = Rotating | 'upstream-ca' | 'workload-svid'

/** What {@link Metrics.hsm} reads. Counts are since the process began. */
export interface HsmReading {
  /** A token's label, from the configuration. */
  readonly token: string
  readonly isUp: boolean
  readonly changedAtSeconds: number
  readonly signatures: number
  readonly wrongSignatures: number
  readonly signerStarts: number
  readonly recoveries: number
  readonly inFlight: number
}

/**
 * The metrics of a process. Labels take few values: methods, stable reasons, types; never an address, a
 * SPIFFE ID or anything else a caller chooses.
 */
export class Metrics {
  readonly #registry = new Registry()
  readonly #buildInfo = this.#gauge('assay_build_info', 'program', 'version', 'trust_domain')
  readonly #rpc = this.#histogram(
    'assay_rpc_duration_seconds',
    { buckets: durationBuckets },
    'service',
    'method',
    'code',
  )
  readonly #connections = this.#gauge('assay_connections', 'to')
  readonly #rpcInFlight = this.#gauge('assay_rpc_in_flight', 'service')
  readonly #rpcExcess = this.#counter('assay_rpc_excess_total', 'what')
  readonly #denied = this.#counter('assay_authorization_denied_total', 'method', 'reason')
  readonly #attestations = this.#counter(
    'assay_attestations_total',
    'kind',
    'attestor',
    'outcome',
    'reason',
  )
  readonly #issued = this.#counter('assay_svids_issued_total', 'type')
  readonly #namespaceEntries = this.#gauge('assay_namespace_entries', 'namespace')
  readonly #namespaceIssued = this.#counter(
    'assay_namespace_svids_issued_total',
    'namespace',
    'type',
  )
  readonly #refused = this.#counter('assay_svids_refused_total', 'type', 'reason')
  readonly #streams = this.#gauge('assay_streams', 'kind')
  readonly #cacheEntries = this.#gauge('assay_cache_entries', 'cache')
  readonly #approvalsPending = this.#gauge('assay_approvals_pending')
  readonly #datastoreUp = this.#gauge('assay_datastore_up')
  readonly #datastoreOperations = this.#counter('assay_datastore_operations_total', 'operation')
  readonly #datastoreDuration = this.#histogram(
    'assay_datastore_operation_duration_seconds',
    { buckets: datastoreBuckets },
    'operation',
  )
  readonly #datastoreFailures = this.#counter('assay_datastore_failures_total', 'reason')
  readonly #datastoreRevision = this.#gauge('assay_datastore_revision')
  readonly #keyManagerState = this.#gauge('assay_key_manager_state', 'state')
  readonly #nodes = this.#gauge('assay_nodes', 'state')
  readonly #rotations = this.#gauge('assay_rotations', 'kind')
  readonly #hsmUp = this.#gauge('assay_hsm_up', 'token')
  readonly #hsmChange = this.#gauge('assay_hsm_state_change_timestamp_seconds', 'token')
  readonly #hsmSignatures = this.#counter('assay_hsm_signatures_total', 'token')
  readonly #hsmWrong = this.#counter('assay_hsm_wrong_signatures_total', 'token')
  readonly #hsmInFlight = this.#gauge('assay_hsm_signatures_in_flight', 'token')
  readonly #hsmDuration = this.#histogram(
    'assay_hsm_signature_duration_seconds',
    { buckets: signatureBuckets },
    'token',
  )
  readonly #hsmStarts = this.#counter('assay_hsm_signer_starts_total', 'token')
  readonly #hsmRecoveries = this.#counter('assay_hsm_recoveries_total', 'token')
  readonly #promotions = this.#counter('assay_authority_promotions_total', 'kind')
  readonly #expiry = this.#gauge('assay_expiry_timestamp_seconds', 'what')
  readonly #rotation = this.#gauge('assay_rotation_timestamp_seconds', 'what')
  readonly #tlsConnections = this.#counter('assay_tls_connections_total', 'group')
  readonly #peersVerified = this.#counter('assay_peers_verified_total', 'pq')
  readonly #pqMigration = this.#gauge('assay_pq_migration', 'what', 'state')
  readonly #tlsFailures = this.#counter('assay_tls_handshake_failures_total', 'reason')
  readonly #linesLeftOut = this.#counter('assay_log_lines_left_out_total', 'kind')
  readonly #serverReachable = this.#gauge('assay_server_reachable')
  readonly #lastSync = this.#gauge('assay_last_sync_timestamp_seconds')
  readonly #clockOffset = this.#gauge('assay_clock_offset_seconds')
  readonly #reportState = this.#gauge('assay_report_state', 'state')
  readonly #hsmRead = new Map<string, HsmReading>()
  readonly #collectors: (() => void)[] = []

  /** With `processMetrics`, also memory, CPU, file descriptors and event loop. */
  constructor(options: { readonly processMetrics?: boolean } = {}) {
    if (options.processMetrics === true) addProcessMetrics(this.#registry)
  }

  /** Everything in Prometheus' text format. */
  async exposition(): Promise<string> {
    for (const collect of this.#collectors) collect()
    return await this.#registry.metrics()
  }

  /** The content type of {@link Metrics.exposition}. */
  get contentType(): string {
    return this.#registry.contentType
  }

  /** Has `collect` set gauges just before each reading, instead of after each change. */
  beforeReading(collect: () => void): void {
    this.#collectors.push(collect)
  }

  buildInfo(labels: {
    readonly program: string
    readonly version: string
    readonly trustDomain: string
  }): void {
    const { program, version, trustDomain } = labels
    this.#buildInfo.set({ program, version, trust_domain: trustDomain }, 1)
  }

  /** `code` is the gRPC status by name: `OK`, `PERMISSION_DENIED`. */
  rpc(
    call: { readonly service: string; readonly method: string; readonly code: string },
    seconds: number,
  ): void {
    const { service, method, code } = call
    this.#rpc.observe({ service, method, code }, seconds)
  }

  connections(to: 'administration' | 'agents' | 'workload-api', count: number): void {
    this.#connections.set({ to }, count)
  }

  /** Counts a call of `service` as being served until disposed. */
  rpcInFlight(service: string): Disposable {
    return held(this.#rpcInFlight, { service })
  }

  rpcExcess(what: 'connections' | 'calls' | 'request-bytes'): void {
    this.#rpcExcess.inc({ what })
  }

  authorizationDenied(labels: { readonly method: string; readonly reason: string }): void {
    this.#denied.inc({ method: labels.method, reason: labels.reason })
  }

  /** `reason` is the stable name of the check that failed; empty for a success. */
  attestation(result: {
    readonly kind: 'node' | 'workload'
    readonly attestor: string
    readonly outcome: 'allowed' | 'refused' | 'failed'
    readonly reason?: string
  }): void {
    const { kind, attestor, outcome, reason = '' } = result
    this.#attestations.inc({ kind, attestor, outcome, reason })
  }

  svidIssued(type: SvidType, count = 1): void {
    this.#issued.inc({ type }, count)
  }

  /** Every namespace at once: what is not among them has no entries any more. */
  namespaceEntries(counts: ReadonlyMap<string, number>): void {
    this.#namespaceEntries.reset()
    for (const [namespace, count] of counts) this.#namespaceEntries.set({ namespace }, count)
  }

  namespaceSvidIssued(namespace: string, type: 'x509' | 'jwt'): void {
    this.#namespaceIssued.inc({ namespace, type })
  }

  svidRefused(type: SvidType, reason: string): void {
    this.#refused.inc({ type, reason })
  }

  /** Counts a stream as open until disposed. */
  stream(kind: StreamKind): Disposable {
    return held(this.#streams, { kind })
  }

  cacheEntries(cache: CacheName, count: number): void {
    this.#cacheEntries.set({ cache }, count)
  }

  approvalsPending(count: number): void {
    this.#approvalsPending.set(count)
  }

  datastoreUp(isUp: boolean): void {
    this.#datastoreUp.set(Number(isUp))
  }

  /** `operation` is the method's name. */
  datastoreOperation(operation: string): void {
    this.#datastoreOperations.inc({ operation })
  }

  datastoreDuration(operation: string, seconds: number): void {
    this.#datastoreDuration.observe({ operation }, seconds)
  }

  datastoreFailure(reason: string): void {
    this.#datastoreFailures.inc({ reason })
  }

  datastoreRevision(revision: number): void {
    this.#datastoreRevision.set(revision)
  }

  keyManagerState(state: KeyManagerStateLabel): void {
    for (const one of keyManagerStates) {
      this.#keyManagerState.set({ state: one }, Number(one === state))
    }
  }

  /** How far the newest bundle has come. */
  nodes(counts: Readonly<Record<'current' | 'lacking' | 'away', number>>): void {
    for (const [state, count] of Object.entries(counts)) this.#nodes.set({ state }, count)
  }

  rotations(kind: 'x509' | 'jwt', count: number): void {
    this.#rotations.set({ kind }, count)
  }

  /** How an HSM is and what it has done in all, since this process began. */
  hsm(activity: HsmReading): void {
    const { token } = activity
    this.#hsmUp.set({ token }, Number(activity.isUp))
    this.#hsmChange.set({ token }, activity.changedAtSeconds)
    this.#hsmInFlight.set({ token }, activity.inFlight)
    const before = this.#hsmRead.get(token)
    this.#hsmSignatures.inc({ token }, activity.signatures - (before?.signatures ?? 0))
    this.#hsmWrong.inc({ token }, activity.wrongSignatures - (before?.wrongSignatures ?? 0))
    this.#hsmStarts.inc({ token }, activity.signerStarts - (before?.signerStarts ?? 0))
    this.#hsmRecoveries.inc({ token }, activity.recoveries - (before?.recoveries ?? 0))
    this.#hsmRead.set(token, activity)
  }

  authorityPromoted(kind: 'x509' | 'jwt'): void {
    this.#promotions.inc({ kind })
  }

  hsmSignature(token: string, seconds: number): void {
    this.#hsmDuration.observe({ token }, seconds)
  }

  /** Unix time, in seconds; undefined: there is none now. */
  expiry(what: Expiring, atSeconds: number | undefined): void {
    if (atSeconds === undefined) this.#expiry.remove({ what })
    else this.#expiry.set({ what }, atSeconds)
  }

  /** Unix time, in seconds; undefined: there is none now. */
  issued(what: Rotating, atSeconds: number | undefined): void {
    if (atSeconds === undefined) this.#rotation.remove({ what })
    else this.#rotation.set({ what }, atSeconds)
  }

  /** `group` by its name in TLS: `X25519MLKEM768`. */
  tlsConnection(group: string): void {
    this.#tlsConnections.inc({ group })
  }

  peerVerified(pq: 'verified' | 'absent' | 'invalid'): void {
    this.#peersVerified.inc({ pq })
  }

  /** How many there are, and how many of them are hybrid. */
  pqMigration(what: 'nodes' | 'connections' | 'svids', of: { all: number; hybrid: number }): void {
    this.#pqMigration.set({ what, state: 'hybrid' }, of.hybrid)
    this.#pqMigration.set({ what, state: 'classical' }, of.all - of.hybrid)
  }

  tlsHandshakeFailure(reason: 'no-common-group' | 'other'): void {
    this.#tlsFailures.inc({ reason })
  }

  /** `audit`: records of the server; `workloads`: refusals of the Workload API. */
  linesLeftOut(kind: 'audit' | 'workloads', lines: number): void {
    this.#linesLeftOut.inc({ kind }, lines)
  }

  serverReachable(isReachable: boolean): void {
    this.#serverReachable.set(Number(isReachable))
  }

  /** Unix time, in seconds. */
  lastSync(atSeconds: number): void {
    this.#lastSync.set(atSeconds)
  }

  /** Positive while the server's clock is ahead. */
  clockOffset(seconds: number): void {
    this.#clockOffset.set(seconds)
  }

  reportState(state: ReportStateLabel): void {
    for (const one of reportStates) this.#reportState.set({ state: one }, Number(one === state))
  }

  #counter<L extends string>(name: keyof typeof help, ...labelNames: L[]): Counter<L> {
    return new Counter({ name, help: help[name], labelNames, registers: [this.#registry] })
  }

  #gauge<L extends string>(name: keyof typeof help, ...labelNames: L[]): Gauge<L> {
    const gauge = new Gauge({ name, help: help[name], labelNames, registers: [this.#registry] })
    // The library begins with 0, which nobody has measured: on an agent the datastore would be down.
    if (labelNames.length === 0) gauge.remove()
    return gauge
  }

  #histogram<L extends string>(
    name: keyof typeof help,
    { buckets }: { readonly buckets: number[] },
    ...labelNames: L[]
  ): Histogram<L> {
    return new Histogram({
      name,
      help: help[name],
      labelNames,
      buckets,
      registers: [this.#registry],
    })
  }
}

function held<L extends string>(gauge: Gauge<L>, labels: Partial<Record<L, string>>): Disposable {
  gauge.inc(labels)
  let isHeld = true
  return {
    [Symbol.dispose]: () => {
      if (isHeld) gauge.dec(labels)
      isHeld = false
    },
  }
}
