import { runTasks, type Task } from '#base/tasks.ts'
import { changedKeys } from '#config/changed-keys.ts'
import type { Daemon } from '#daemon/daemon.ts'
import { pingWatchdog } from '#daemon/watchdog.ts'
import type { TlsListener } from '#rpc/tls-listener.ts'
import { warnOfUnknown } from './administrators/open-administrators.ts'
import { configWarnings, liveKeys, type ServerConfig } from './config.ts'
import { type Endpoints, listenTls, openEndpoints } from './endpoints.ts'
import { keepHouse } from './housekeeping.ts'
import { openParts, type Parts, type ServerProcess } from './parts.ts'

/** How long calls that are open may take to end when the server stops. */
const graceMs = 10_000

/** One server of a trust domain: opened by {@link Server.open}, then {@link run} until it is told to stop. */
export class Server implements Daemon<ServerConfig, void> {
  readonly #parts: Parts
  readonly #endpoints: Endpoints
  readonly #resources: AsyncDisposableStack
  #tls: TlsListener | undefined

  private constructor(parts: Parts, endpoints: Endpoints, resources: AsyncDisposableStack) {
    this.#parts = parts
    this.#endpoints = endpoints
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
    const endpoints = await openEndpoints(parts, resources)
    const server = new Server(parts, endpoints, resources.move())
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
    return this.#endpoints.healthPort
  }

  /** The port of the metrics, if there are any. */
  get metricsPort(): number | undefined {
    return this.#endpoints.metricsPort
  }

  /**
   * Takes over what may change while the server runs, {@link liveKeys}, and returns the other keys that have changed
   * since the start: those need a restart. The log's level is the caller's.
   */
  async reload(config: ServerConfig): Promise<readonly string[]> {
    const { live, process, administrators } = this.#parts
    for (const warning of configWarnings(config)) process.log.warn({}, warning)
    live.replace(config)
    administrators.replace({ rows: config.administrators, adminIds: config.admin_ids })
    await warnOfUnknown(administrators, process.log)
    // Whom nothing but its row let in is shut out now.
    void this.#tls?.verifyClientsAgain()
    return changedKeys(this.#parts.config, config).filter((key) => !liveKeys.includes(key))
  }

  /** Serves until `signal` aborts; then lets open calls end, and returns. */
  async run(signal: AbortSignal): Promise<void> {
    const { authorities, bundles, holdings, serverSvid, probe, process, health, keyManager } =
      this.#parts
    const { local, remote } = this.#endpoints
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
      (stop) => pingWatchdog({ ...process, health }, stop),
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
    this.#tls = await listenTls(this.#endpoints.remote, this.#parts)
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
