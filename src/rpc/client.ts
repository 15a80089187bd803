import { isIP } from 'node:net'
import {
  type ChannelInterface as Channel,
  type ChannelOptions,
  connectivityState,
  credentials,
  Client as GrpcClient,
  getClientChannel,
} from '@grpc/grpc-js'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import {
  type BidiCall,
  type CallOptions,
  callBidi,
  callServerStream,
  callUnary,
  type Wire,
} from './client-call.ts'
import { HealthDefinition } from './gen/grpc/health/v1/health.ts'
import type { Partially, Request, Response, ServiceDefinition } from './service.ts'
import { type MethodDefinition, methodPath } from './service.ts'
import { TlsConnector, type TlsConnectorOptions } from './tls-connector.ts'

export type { BidiCall, CallOptions } from './client-call.ts'

/** How a method is called. */
export type ClientMethod<M extends MethodDefinition> = M extends { readonly requestStream: false }
  ? M extends { readonly responseStream: false }
    ? (request: Partially<Request<M>>, options?: CallOptions) => Promise<Response<M>>
    : (request: Partially<Request<M>>, options?: CallOptions) => AsyncIterable<Response<M>>
  : (options?: CallOptions) => BidiCall<Request<M>, Response<M>>

/**
 * The methods of a service, by their names in lower camel case. Every call that fails rejects with an
 * AssayError as the server threw it: `unavailable` when it could not be reached at all.
 */
export type RpcClient<D extends ServiceDefinition> = {
  readonly [K in keyof D['methods']]: ClientMethod<D['methods'][K]>
}

/** `idle`: will connect at the next call. `failed`: will try again after a pause, and calls fail until then. */
export type ConnectionState = 'idle' | 'connecting' | 'ready' | 'failed' | 'closed'

export interface ConnectionOptions {
  /** Times calls out. */
  readonly clock: Clock
  /** Largest answer that is taken, in bytes. Default 64 MiB. */
  readonly maxResponseBytes?: number
  /**
   * Pings the server after this long without a sign of life while calls are open. Default: never. A server made
   * with grpc-go, such as SPIRE's, hangs up on pings that come more often than every five minutes.
   */
  readonly keepaliveMs?: number
  /** Longest pause between attempts to connect. Default 10 s. */
  readonly maxReconnectMs?: number
  /** Called at each change of state. */
  readonly onState?: (state: ConnectionState) => void
}

export interface ConnectTlsOptions extends ConnectionOptions, TlsConnectorOptions {}

/** A connection to a server: made when it is first needed, and made again when it breaks. */
export class Connection implements Disposable {
  /** For messages: `unix:///run/x.sock`, `10.0.0.1:8081`. */
  readonly address: string
  readonly #grpc: GrpcClient
  readonly #clock: Clock
  readonly #tls: TlsConnector | undefined
  #closed = false

  /** @internal Use {@link connectUnix} or {@link connectTls}. */
  constructor(
    address: string,
    grpc: GrpcClient,
    options: ConnectionOptions & { tls?: TlsConnector },
  ) {
    this.address = address
    this.#grpc = grpc
    this.#clock = options.clock
    this.#tls = options.tls
    if (options.onState !== undefined) this.#watch(getClientChannel(grpc), options.onState)
  }

  get state(): ConnectionState {
    return this.#closed ? 'closed' : stateNames[this.#channelState(false)]
  }

  /** A client for a service. It costs little, and works as long as the connection. */
  client<D extends ServiceDefinition>(service: D): RpcClient<D> {
    const wire: Wire = {
      grpc: this.#grpc,
      clock: this.#clock,
      checkOpen: () => {
        if (this.#closed) throw this.#unreachable('it was closed at this end', 'connection-closed')
      },
      explain: (error) => this.#explain(error),
    }
    const methods: Record<string, unknown> = {}
    for (const [name, definition] of Object.entries(service.methods)) {
      const method = { ...definition, path: methodPath(service, definition) }
      if (method.requestStream) {
        methods[name] = (options: CallOptions = {}) => callBidi(wire, method, options)
        continue
      }
      const make = method.responseStream ? callServerStream : callUnary
      methods[name] = (request: object, options: CallOptions = {}) =>
        make(wire, method, { request, options })
    }
    return methods as RpcClient<D>
  }

  /**
   * Connects now, and not at the first call.
   *
   * @throws AssayError `unavailable` when the first attempt fails; the signal's reason when it aborts.
   */
  async connect(options: { readonly signal: AbortSignal }): Promise<void> {
    for (;;) {
      options.signal.throwIfAborted()
      const state = this.#closed ? connectivityState.SHUTDOWN : this.#channelState(true)
      if (state === connectivityState.READY) return
      if (state === connectivityState.IDLE || state === connectivityState.CONNECTING) {
        await changeOf(getClientChannel(this.#grpc), state, options.signal)
      } else await this.#failToCall(options.signal)
    }
  }

  /**
   * Keying material of the TLS connection (RFC 8446 §7.5), the same at the server. With `pinned`, every call
   * of this object that succeeds has gone over that very connection.
   *
   * @throws AssayError `unavailable` when there is no live TLS connection: {@link connect} first.
   */
  exporter(label: string, length: number): Uint8Array {
    const material = this.#closed ? undefined : this.#tls?.exporter(label, length)
    if (material !== undefined) return material
    throw new AssayError(
      'unavailable',
      `cannot export keying material: there is no TLS connection to ${this.address}`,
      { reason: 'not-connected' },
    )
  }

  /** Ends every call that is open. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#grpc.close()
    this.#tls?.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #channelState(connect: boolean): connectivityState {
    return getClientChannel(this.#grpc).getConnectivityState(connect)
  }

  /** A channel that has failed says why only to a call, which it refuses without sending it. */
  async #failToCall(signal: AbortSignal): Promise<void> {
    const { check } = this.client(HealthDefinition)
    try {
      await check({}, { signal })
    } catch (error) {
      signal.throwIfAborted()
      if (this.state !== 'ready') throw error
    }
  }

  #explain(error: AssayError): AssayError {
    if (this.#closed)
      return this.#unreachable('it was closed at this end', 'connection-closed', error)
    if (error.code !== 'unavailable' || !notConnected.test(error.message)) return error
    const tlsError = this.#tls?.lastError
    if (tlsError === undefined || !error.message.includes(tlsError.message)) {
      return this.#unreachable(causeOf(error.message), 'not-connected', error)
    }
    const reason = tlsError instanceof AssayError ? tlsError.reason : undefined
    return this.#unreachable(tlsError.message, reason ?? 'not-connected', tlsError)
  }

  #unreachable(why: string, reason: string, cause?: Error): AssayError {
    return new AssayError('unavailable', `cannot reach ${this.address}: ${why}`, { cause, reason })
  }

  #watch(channel: Channel, onState: (state: ConnectionState) => void): void {
    const state = channel.getConnectivityState(false)
    if (state === connectivityState.SHUTDOWN) return
    channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, () => {
      onState(this.state)
      this.#watch(channel, onState)
    })
  }
}

const stateNames: Readonly<Record<connectivityState, ConnectionState>> = {
  [connectivityState.IDLE]: 'idle',
  [connectivityState.CONNECTING]: 'connecting',
  [connectivityState.READY]: 'ready',
  [connectivityState.TRANSIENT_FAILURE]: 'failed',
  [connectivityState.SHUTDOWN]: 'closed',
}

/** How grpc-js begins to say that it has no connection. */
const notConnected = /^(No connection established|Name resolution failed|Failed to connect)/

/** The operating system's part of what grpc-js says: `connect ECONNREFUSED 127.0.0.1:8081`. */
function causeOf(message: string): string {
  const [, cause = message] =
    /Last error: (?:Error: )?(.*?)(?: \(\d{4}-[^)]*\))?\. Resolution note/.exec(message) ?? []
  return cause
}

function changeOf(channel: Channel, from: connectivityState, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    channel.watchConnectivityState(from, Number.POSITIVE_INFINITY, () => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    })
  })
}

/** A connection to a server on a Unix socket. Nothing is connected yet: a wrong path shows at the first call. */
export function connectUnix(path: string, options: ConnectionOptions): Connection {
  const grpc = new GrpcClient(`unix:${path}`, credentials.createInsecure(), channelOptions(options))
  return new Connection(`unix://${path}`, grpc, options)
}

/** A connection to a server over TLS, of whom `verifyServer` decides whether it is the right one. */
export function connectTls(options: ConnectTlsOptions): Connection {
  const { host, port } = options
  const tls = new TlsConnector(options)
  const address = isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
  const grpc = new GrpcClient(`dns:${address}`, tls.credentials, channelOptions(options))
  return new Connection(address, grpc, { ...options, tls })
}

function channelOptions(options: ConnectionOptions): ChannelOptions {
  const { keepaliveMs, maxResponseBytes = 64 * 1024 * 1024, maxReconnectMs = 10_000 } = options
  return {
    // grpc-js otherwise shares connections between clients with equal options.
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_channelz': 0,
    'grpc.enable_retries': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.max_receive_message_length': maxResponseBytes,
    'grpc.max_send_message_length': -1,
    'grpc.initial_reconnect_backoff_ms': Math.min(1_000, maxReconnectMs),
    'grpc.max_reconnect_backoff_ms': maxReconnectMs,
    ...(keepaliveMs !== undefined && { 'grpc.keepalive_time_ms': keepaliveMs }),
  }
}
