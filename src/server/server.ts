import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { utf8Bytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { silentLog } from '#base/log.ts'
import { type Random, randomUuid } from '#base/random.ts'
import { runTasks, type Task } from '#base/tasks.ts'
import { version } from '#base/version.ts'
import { changedKeys } from '#config/changed-keys.ts'
import { NameTable } from '#host/name-service.ts'
import type { Notifier } from '#host/notify.ts'
import { writeSecretFile } from '#host/secret-file.ts'
import { attributeType, type NameAttribute } from '#pki/name.ts'
import type { StrangerLimits } from '#rpc/listener.ts'
import { RpcServer } from '#rpc/server.ts'
import type { TlsListener } from '#rpc/tls-listener.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { type SpiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import { Audit } from '#telemetry/audit.ts'
import { Health } from '#telemetry/health.ts'
import { type HttpRoute, healthRoutes, listenHttp, metricsRoutes } from '#telemetry/http.ts'
import type { ProcessLog } from '#telemetry/log.ts'
import { Metrics } from '#telemetry/metrics.ts'
import { Administrators } from './administrators/administrators.ts'
import { Approvals } from './administrators/approvals.ts'
import { approving, mostNeeded } from './api/approving.ts'
import { Authorizer } from './api/authorize.ts'
import { ConnectedAgents } from './api/connected-agents.ts'
import { Guard } from './api/guard.ts'
import { limiting } from './api/limits.ts'
import { RequestJudge } from './api/request-judge.ts'
import { addLocalServices, addTlsServices, type ServiceDependencies } from './api/services.ts'
import { AuthorityManager } from './authority/authority-manager.ts'
import { BundleCache } from './bundle/bundle-cache.ts'
import type { SvidDefaults } from './ca/issuer.ts'
import { newUpstreamAuthority, openKeyManager, openNodeAttestors } from './catalog/built-ins.ts'
import { newClientVerifier } from './client-verifier.ts'
import { configWarnings, liveKeys, pqParameterSet, type ServerConfig } from './config.ts'
import type { Datastore } from './datastore/datastore.ts'
import { AuthorizedEntries } from './entry/authorized-entries.ts'
import { keepHouse } from './housekeeping.ts'
import { IssueHistory } from './issue-history.ts'
import { meteredAuthority } from './metered-authority.ts'
import { meteredDatastore } from './metered-datastore.ts'
import { Namespaces } from './namespaces.ts'
import { LostState } from './node/lost-state.ts'
import { NodeCache } from './node/node-cache.ts'
import { NodeHoldings } from './node/node-holdings.ts'
import type { KeyManager } from './plugin/key-manager/key-manager.ts'
import { ServerSvid } from './svid/server-svid.ts'
import { DatastoreProbe, registerHealth, registerMetrics } from './vitals.ts'

/** What a server gets from the process it runs in. */
export interface ServerProcess {
  readonly clock: Clock
  readonly random: Random
  readonly log: ProcessLog
  readonly notifier: Notifier
  /** The user it runs as. */
  readonly ownUid: number
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  readonly openDatastore: (settings: ServerConfig['datastore']) => Datastore
}

/** How long calls that are open may take to end when the server stops. */
const graceMs = 10_000

/**
 * What a node needs that attests: two calls with messages of a few KiB, and the time that a wait for its turn and a
 * slow TPM take. All that the strangers of one source can make the server hold is 256 MiB.
 */
const attestingStrangers: StrangerLimits = {
  maxConnectionsPerSource: 1024,
  maxConcurrentStreams: 2,
  maxRequestBytes: 128 * 1024,
  maxConnectionAgeMs: 180_000,
  graceMs: 10_000,
}

/** Everything of a server that outlives its start. */
interface Parts {
  /** As it was at the start. */
  readonly config: ServerConfig
  readonly live: LiveSettings
  readonly process: ServerProcess
  readonly datastore: Datastore
  readonly keyManager: KeyManager
  readonly authorities: AuthorityManager
  readonly serverSvid: ServerSvid
  readonly nodes: NodeCache
  readonly bundles: BundleCache
  readonly probe: DatastoreProbe
  readonly health: Health
  readonly holdings: NodeHoldings
  readonly metrics: Metrics
  readonly administrators: Administrators
  readonly audit: Audit
  /** For processes on this machine, and for everybody else. */
  readonly local: RpcServer
  readonly remote: RpcServer
  readonly healthPort: number | undefined
  readonly metricsPort: number | undefined
}

/** One server of a trust domain: opened by {@link Server.open}, then {@link run} until it is told to stop. */
export class Server implements AsyncDisposable {
  readonly #parts: Parts
  readonly #resources: AsyncDisposableStack
  #tls: TlsListener | undefined

  private constructor(parts: Parts, resources: AsyncDisposableStack) {
    this.#parts = parts
    this.#resources = resources
  }

  /**
   * Opens what the configuration names and begins to listen. When nothing can be signed, because the HSM is away or
   * the clock went back, the server listens on the administration socket only; {@link run} lets agents in as soon as
   * it can show an SVID.
   *
   * @throws AssayError that says what to do: `failed-precondition` when an operator has to act first.
   */
  static async open(config: ServerConfig, process: ServerProcess): Promise<Server> {
    for (const warning of configWarnings(config)) process.log.warn({}, warning)
    await using resources = new AsyncDisposableStack()
    const parts = await openParts(config, process, resources)
    const server = new Server(parts, resources.move())
    try {
      if (parts.serverSvid.current() !== undefined) await server.#listenTls()
      server.#tellWhereToBegin()
      return server
    } catch (error) {
      await server[Symbol.asyncDispose]()
      throw error
    }
  }

  /** The port agents connect to, also when the configuration says 0; undefined until there is an SVID. */
  get port(): number | undefined {
    return this.#tls?.port
  }

  /** The port of the health checks, if there are any. */
  get healthPort(): number | undefined {
    return this.#parts.healthPort
  }

  /** The port of the metrics, if there are any. */
  get metricsPort(): number | undefined {
    return this.#parts.metricsPort
  }

  /**
   * Takes over what may change while the server runs, {@link liveKeys}, and returns the other keys that have changed
   * since the start: those need a restart. The log's level is the caller's.
   */
  async reload(config: ServerConfig): Promise<readonly string[]> {
    const { live, process, administrators } = this.#parts
    for (const warning of configWarnings(config)) process.log.warn({}, warning)
    live.config = config
    administrators.replace({ rows: config.administrators, adminIds: config.admin_ids })
    await warnOfUnknown(administrators, process)
    // Whom nothing but its row let in is shut out now.
    void this.#tls?.verifyClientsAgain()
    return changedKeys(this.#parts.config, config).filter((key) => !liveKeys.includes(key))
  }

  /** Serves until `signal` aborts; then lets open calls end, and returns. */
  async run(signal: AbortSignal): Promise<void> {
    const {
      authorities,
      bundles,
      holdings,
      serverSvid,
      probe,
      process,
      local,
      remote,
      keyManager,
    } = this.#parts
    const { notifier } = process
    using _identity = serverSvid.onRotate(() => this.#tls?.updateIdentity())
    using _clients = bundles.onChange(() => void this.#tls?.verifyClientsAgain())
    using _status = keyManager.onStatus(({ state }) => {
      if (state === 'ok' && this.#tls !== undefined) holdings.opened()
      this.#tellStatus()
    })
    using _used = serverSvid.onRotate((identity) => holdings.serverUses(identity.authorityId))
    const shown = serverSvid.current()
    if (shown !== undefined) holdings.serverUses(shown.authorityId)
    const tasks: Task[] = [
      (stop) => authorities.run(stop),
      (stop) => serverSvid.run(stop),
      (stop) => this.#listenTlsLater(stop),
      (stop) => probe.run(stop),
      (stop) => this.#keepHouse(stop),
      (stop) => this.#pingWatchdog(stop),
    ]
    this.#tellStatus()
    notifier.ready()
    try {
      await runTasks(signal, tasks)
    } finally {
      notifier.stopping()
      process.log.info({}, 'stopping')
      await Promise.all([remote.stop(graceMs), local.stop(graceMs)])
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync()
  }

  async #listenTls(): Promise<void> {
    const { config, process, remote, serverSvid, bundles, metrics, administrators } = this.#parts
    const { trust_domain: trustDomain, bind_address: address, bind_port: port } = config
    this.#tls = await remote.listenTls({
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
      keepaliveMs: 60_000,
    })
    process.log.info({ address, port: this.#tls.port, trustDomain }, 'agents can connect')
    this.#parts.holdings.opened()
  }

  /** When there was no SVID at the start. */
  async #listenTlsLater(signal: AbortSignal): Promise<void> {
    if (this.#tls !== undefined) return
    const { serverSvid, process } = this.#parts
    process.log.error({}, 'the server has no SVID, so agents cannot connect yet')
    const { promise, resolve } = Promise.withResolvers<void>()
    using _rotation = serverSvid.onRotate(() => resolve())
    signal.addEventListener('abort', () => resolve(), { once: true })
    if (serverSvid.current() === undefined) await promise
    if (signal.aborted) return
    await this.#listenTls()
    this.#tellStatus()
  }

  #keepHouse(signal: AbortSignal): Promise<void> {
    const { config, process, datastore, holdings, audit } = this.#parts
    return keepHouse(
      {
        ...process,
        datastore,
        holdings,
        audit,
        pruneNodesAfterSeconds: config.prune_attested_nodes_expired_for,
      },
      signal,
    )
  }

  /** A ping says that the event loop turns and that no part needs a restart. */
  async #pingWatchdog(signal: AbortSignal): Promise<void> {
    const { process, health } = this.#parts
    const { clock, notifier } = process
    const { watchdogIntervalMs } = notifier
    if (watchdogIntervalMs === undefined) return
    const interval = Temporal.Duration.from({ milliseconds: Math.floor(watchdogIntervalMs) })
    for (;;) {
      if (health.report().live) notifier.watchdog()
      await clock.sleep(interval, signal)
    }
  }

  #tellStatus(): void {
    const { config, process, keyManager } = this.#parts
    const { state, detail, where } = keyManager.status()
    const keys = state === 'ok' ? `keys in ${where}` : `key manager is ${state}: ${detail}`
    const port = this.#tls?.port
    const agents = port === undefined ? 'not open to agents yet' : `port ${port}`
    process.notifier.status(`trust domain ${config.trust_domain}, ${agents}, ${keys}`)
  }

  /** A new server is of no use until agents have its bundle. */
  #tellWhereToBegin(): void {
    const { config, process, nodes } = this.#parts
    if (nodes.size > 0) return
    process.log.info(
      { command: `assay bundle show --socket-path ${config.socket_path} > bundle.pem` },
      'no node has attested yet; agents need the trust bundle',
    )
  }
}

async function openParts(
  config: ServerConfig,
  process: ServerProcess,
  resources: AsyncDisposableStack,
): Promise<Parts> {
  const { clock, random, log, monotonicMs } = process
  const trustDomain = config.trust_domain
  const live: LiveSettings = { config }
  const svidLifetimes = lifetimesOf(live)
  const serverName = await loadServerName(config.data_dir, random)
  const metrics = new Metrics({ processMetrics: true })
  metrics.buildInfo({ program: 'server', version, trustDomain })
  const datastore = meteredDatastore(
    resources.use(process.openDatastore(config.datastore)),
    metrics,
  )
  await checkTrustDomain(datastore, config)
  const keyManager = resources.use(await openKeyManager(config, { ...process, metrics }))
  const nodes = resources.use(await NodeCache.load(datastore))
  const connected = new ConnectedAgents()
  const holdings = new NodeHoldings({
    nodes,
    isConnected: (agentId) => connected.has(agentId),
    clock,
  })
  const audit = new Audit({
    log: config.audit_log_enabled ? log.unfiltered : silentLog,
    clock,
    onLeftOut: (records) => metrics.linesLeftOut('audit', records),
  })
  resources.defer(() => audit.close())
  const upstreamAuthority = newUpstreamAuthority(config, process)
  if (upstreamAuthority !== undefined) resources.use(upstreamAuthority)
  const authorities = resources.use(
    await AuthorityManager.open({
      datastore,
      keyManager,
      holders: holdings,
      upstreamAuthority,
      clock,
      random,
      log: log.child({ component: 'authority' }),
      onEvent: ({ kind, what, authorityId }) => {
        // That it can sign again changes nothing.
        if (what === 'usable') return
        if (what === 'promoted') metrics.authorityPromoted(kind)
        audit.change({ action: `authority-${what}`, subject: authorityId, details: { kind } })
      },
      trustDomain,
      serverName,
      caTtlSeconds: config.ca_ttl,
      caKeyType: config.ca_key_type,
      jwtKeyType: config.jwt_key_type,
      pqParameterSet: pqParameterSet(config),
      caSubject: caSubject(config.ca_subject),
      propagationDelaySeconds: config.propagation_delay,
      refreshHintSeconds: 300,
      svidDefaults: svidLifetimes,
    }),
  )
  if (!authorities.states('x509').some(({ state }) => state === 'active')) {
    // Nothing that was certified before can be signed with either: whoever starts it is told what is wrong.
    await upstreamAuthority?.current()
  }
  const entries = resources.use(await AuthorizedEntries.load(datastore, { trustDomain, clock }))
  const bundles = resources.use(await BundleCache.load(datastore))
  const serverSvid = await ServerSvid.open({
    authorities,
    clock,
    keyType: config.ca_key_type,
    log: log.child({ component: 'server-svid' }),
  })
  const attestors = await openNodeAttestors(config, { ...process, datastore })

  const health = new Health()
  const probe = new DatastoreProbe({ datastore, trustDomain, clock, metrics })
  const vitals = {
    authorities,
    holdings,
    bundles,
    entries,
    keyManager,
    nodes,
    serverSvid,
    datastore,
    probe,
  }
  registerHealth(health, vitals)
  registerMetrics(metrics, vitals)

  const namespaces = config.telemetry.by_namespace ? new Namespaces() : undefined
  if (namespaces !== undefined) {
    metrics.beforeReading(() =>
      metrics.namespaceEntries(namespaces.count(spiffeIdsOf(entries.all))),
    )
  }

  const administrators = newAdministrators(config, process)
  await warnOfUnknown(administrators, process)
  const approvals = new Approvals({ clock, random })
  const needsApproval = mostNeeded(config.approvals) > 1
  const guard = new Guard({ administrators, entries, needsApproval })
  metrics.beforeReading(() => metrics.approvalsPending(approvals.pending))
  const history = new IssueHistory(clock)
  const dependencies: ServiceDependencies = {
    trustDomain,
    serverName,
    clock,
    random,
    log: log.child({ component: 'api' }),
    processLog: log,
    health,
    monotonicMs,
    datastore,
    keyManager,
    upstreamAuthority,
    authorities,
    authority: meteredAuthority(authorities.certificateAuthority, { metrics, history, namespaces }),
    history,
    entries,
    nodes,
    bundles,
    serverSvid,
    attestors,
    attestorTypes: new Set(attestors.keys()),
    connected,
    holdings,
    lostState: new LostState({
      heldSequence: () => bundles.bundle(trustDomain)?.sequenceNumber ?? 0n,
      clock,
      log: log.child({ component: 'datastore' }),
    }),
    get replacementSpreadSeconds() {
      return live.config.replacement_spread
    },
    guard,
    approvals,
    approvalsNeeded: approving({
      approvals,
      needed: config.approvals,
      judge: new RequestJudge({ guard, datastore }),
    }),
    svidLifetimes,
    metrics,
    audit,
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
    limits: limiting({ isOn: (limited) => live.config.ratelimit[limited], clock }),
    onAttested: (agentId, address) => alarmElsewhere(agentId, address),
  }
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
  const listen = (address: string, port: number, routes: ReadonlyMap<string, HttpRoute>) =>
    listenHttp({ address, port, routes, log }).then((listener) => resources.use(listener).port)
  const healthPort = await openHealth(config, health, listen)
  const metricsPort = await openMetrics(config, metrics, listen)
  return {
    config,
    live,
    process,
    datastore,
    keyManager,
    authorities,
    serverSvid,
    nodes,
    bundles,
    probe,
    health,
    holdings,
    metrics,
    administrators,
    audit,
    local,
    remote,
    healthPort,
    metricsPort,
  }

  function alarmElsewhere(agentId: SpiffeId, address: string): void {
    const other = connected.elsewhere(agentId, address)
    if (other === undefined) return
    log.warn(
      { spiffeId: agentId, address, connectedFrom: other },
      'a node has attested while it is connected from another address; is its secret in two places?',
    )
  }
}

async function warnOfUnknown(
  administrators: Administrators,
  { log }: Pick<ServerProcess, 'log'>,
): Promise<void> {
  for (const who of await administrators.unknownNames()) {
    log.warn({ who }, 'administrators names somebody this machine does not know')
  }
}

/** What is looked up each time it is needed, so that a reload reaches it. */
interface LiveSettings {
  config: ServerConfig
}

function lifetimesOf(live: LiveSettings): SvidDefaults {
  return {
    get x509SvidTtlSeconds() {
      return live.config.default_x509_svid_ttl
    },
    get agentSvidTtlSeconds() {
      return live.config.agent_ttl
    },
    get jwtSvidTtlSeconds() {
      return live.config.default_jwt_svid_ttl
    },
    jwtIssuer: live.config.jwt_issuer,
  }
}

function* spiffeIdsOf(entries: Iterable<RegistrationEntry>): Generator<SpiffeId> {
  for (const { spiffeId } of entries) yield spiffeId
}

function newAdministrators(
  { administrators: rows, admin_ids: adminIds }: ServerConfig,
  { clock, log, ownUid }: ServerProcess,
): Administrators {
  const names = (database: 'passwd' | 'group'): NameTable =>
    new NameTable({ database, file: `/etc/${database}`, clock, log })
  return new Administrators({
    rows,
    adminIds,
    users: names('passwd'),
    groups: names('group'),
    ownUid,
  })
}

/** Which journal of authorities is this server's; it stays the same as long as data_dir does. */
async function loadServerName(dataDirectory: string, random: Random): Promise<string> {
  const path = join(dataDirectory, 'server-id')
  try {
    await mkdir(dataDirectory, { recursive: true, mode: 0o700 })
    const name = (await readFile(path, 'utf8')).trim()
    if (/^[0-9a-f-]{36}$/.test(name)) return name
    throw new AssayError(
      'failed-precondition',
      `cannot read ${path}: it holds no server id; restore it, or remove it to begin with new authorities`,
    )
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw notUsable(dataDirectory, error)
  }
  const name = randomUuid(random)
  try {
    await writeSecretFile(path, utf8Bytes(`${name}\n`), { random })
  } catch (error) {
    throw notUsable(dataDirectory, error)
  }
  return name
}

function notUsable(dataDirectory: string, cause: unknown): unknown {
  if (cause instanceof AssayError) return cause
  return new AssayError(
    'failed-precondition',
    `cannot use data_dir ${dataDirectory}: ${messageOf(cause)}`,
    { cause },
  )
}

/** @throws AssayError `failed-precondition` when the datastore is another trust domain's. */
async function checkTrustDomain(datastore: Datastore, config: ServerConfig): Promise<void> {
  const all = { pageSize: 0, pageToken: '' }
  const [entries, nodes] = await Promise.all([
    datastore.listEntries({}, all),
    datastore.listNodes({}, all),
  ])
  const ids = [
    ...entries.items.map(({ spiffeId }) => spiffeId),
    ...nodes.items.map(({ agentId }) => agentId),
  ]
  const found = ids.map(trustDomainOf).find((name) => name !== config.trust_domain)
  if (found === undefined) return
  throw new AssayError(
    'failed-precondition',
    `cannot use the datastore ${config.datastore.path}: it has entries or nodes of trust domain ${found}, and trust_domain is ${config.trust_domain}`,
    { reason: 'datastore-of-other-trust-domain' },
  )
}

function caSubject(settings: ServerConfig['ca_subject']): readonly NameAttribute[] {
  const { country, organization, common_name } = settings
  return [
    ...country.map((value) => ({ type: attributeType.country, value })),
    ...organization.map((value) => ({ type: attributeType.organization, value })),
    ...(common_name === undefined ? [] : [{ type: attributeType.commonName, value: common_name }]),
  ]
}

/** Listens for HTTP until the server is disposed of, and returns the port. */
type ListenHttp = (
  address: string,
  port: number,
  routes: ReadonlyMap<string, HttpRoute>,
) => Promise<number>

async function openHealth(
  { health_checks: settings }: ServerConfig,
  health: Health,
  listen: ListenHttp,
): Promise<number | undefined> {
  if (settings === undefined) return undefined
  const { bind_address, bind_port, live_path: live, ready_path: ready } = settings
  return await listen(bind_address, bind_port, healthRoutes(health, { live, ready }))
}

async function openMetrics(
  { telemetry: { prometheus } }: ServerConfig,
  metrics: Metrics,
  listen: ListenHttp,
): Promise<number | undefined> {
  if (prometheus === undefined) return undefined
  return await listen(prometheus.bind_address, prometheus.port, metricsRoutes(metrics))
}
