import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { dispatchService } from './dispatch.ts'
import { Listener, type ListenerLimits } from './listener.ts'
import type { Handlers, Interceptor, ServiceDefinition } from './service.ts'
import { type ListenTlsOptions, listenTls, type TlsListener } from './tls-listener.ts'
import { type ListenUnixOptions, listenUnix, type UnixListener } from './unix-listener.ts'

/** What an {@link RpcServer} is made of. */
export interface RpcServerDependencies {
  readonly log: Log
  readonly random: Random
  readonly clock: Clock
}

/** How long {@link RpcServer.stop} waits for calls by default, in milliseconds. */
const defaultGraceMs = 5_000

/**
 * Serves gRPC services on Unix and TLS sockets. A service is an object of plain async functions and async
 * generators; who calls is in their context. What they throw reaches the client as `status.ts` says.
 */
export class RpcServer implements AsyncDisposable {
  readonly #dependencies: RpcServerDependencies
  readonly #services = new Map<ServiceDefinition, Handlers<ServiceDefinition>>()
  readonly #interceptors: Interceptor[] = []
  readonly #listeners: Listener[] = []
  #stopped: Promise<void> | undefined

  constructor(dependencies: RpcServerDependencies) {
    this.#dependencies = dependencies
  }

  /** Full names of the services, in the order in which they were added. */
  get serviceNames(): readonly string[] {
    return [...this.#services.keys()].map((service) => service.fullName)
  }

  /** @throws TypeError when the server is listening already, or has this service. */
  addService<D extends ServiceDefinition>(service: D, handlers: Handlers<D>): void {
    if (this.#listeners.length > 0) {
      throw new TypeError(`cannot add ${service.fullName}: the server is listening`)
    }
    if (this.serviceNames.includes(service.fullName)) {
      throw new TypeError(`cannot add ${service.fullName}: the server has it`)
    }
    this.#services.set(service, handlers as Handlers<ServiceDefinition>)
  }

  /** Puts an interceptor around every call, inside those added before. */
  use(interceptor: Interceptor): void {
    this.#interceptors.push(interceptor)
  }

  /**
   * Listens on a Unix socket. One that a killed server left behind is replaced.
   *
   * @throws AssayError `failed-precondition`, reason `socket-in-use` when somebody listens on it or it is no
   *   socket; without reason when the path cannot be used.
   */
  async listenUnix(options: ListenUnixOptions): Promise<UnixListener> {
    return listenUnix(options, this.#listener(options), this.#dependencies.log)
  }

  /** Listens for TLS. @throws AssayError `failed-precondition` when the address cannot be listened on. */
  async listenTls(options: ListenTlsOptions): Promise<TlsListener> {
    return listenTls(options, this.#listener(options), this.#dependencies.log)
  }

  #listener(limits: ListenerLimits): Listener {
    if (this.#stopped !== undefined) throw new TypeError('cannot listen: the server has stopped')
    const { log, random, clock } = this.#dependencies
    const listener = new Listener({ log, clock, limits })
    for (const [service, handlers] of this.#services) {
      const { methods, calls } = dispatchService(service, handlers, {
        log,
        random,
        interceptors: this.#interceptors,
        peer: (name) => listener.peer(name),
        streams: listener.streams,
      })
      listener.addService(methods, calls)
    }
    this.#listeners.push(listener)
    return listener
  }

  /** How many connections are open. */
  get connections(): number {
    return this.#listeners.reduce((sum, listener) => sum + listener.size, 0)
  }

  /**
   * Accepts nothing more, ends streams with UNAVAILABLE, lets other calls finish for at most `graceMs`, and then
   * cuts them off. Returns when every socket is closed.
   */
  stop(graceMs = defaultGraceMs): Promise<void> {
    this.#stopped ??= Promise.all(this.#listeners.map((listener) => listener.close(graceMs))).then(
      () => {},
    )
    return this.#stopped
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}
