import { once } from 'node:events'
import {
  constants,
  type Http2Server,
  type ServerOptions as Http2ServerOptions,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2'
import type { Server as NetServer, Socket } from 'node:net'
import { pipeline } from 'node:stream'
import {
  type ConnectionInjector,
  Server as GrpcServer,
  ServerCredentials,
  type ServerOptions,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { LineLimit } from '#base/line-limit.ts'
import type { Log } from '#base/log.ts'
import { openSocketPair } from '#host/socket-pair.ts'
import type { Peer } from './call.ts'
import { type Excess, nameOf, type PeerBounds, type PeerShare, PeerShares } from './peer-shares.ts'
import type { ServerCall } from './server-call.ts'
import { isFromGrpcJava, SocketPathAuthority } from './socket-path-authority.ts'
import { sourceOf } from './source-address.ts'

/** Bounds on what one connection may do. Each has a default that suits a local socket. */
export interface ListenerLimits {
  /** Calls a connection may have open at once. Default 100. */
  readonly maxConcurrentStreams?: number
  /** Largest request message, in bytes. Default 4 MiB, gRPC's own. */
  readonly maxRequestBytes?: number
  /**
   * Calls a connection may cancel in a second, and at first this many at once; one that cancels more is closed
   * (CVE-2023-44487). Default: 33 a second and 1000 at once, as node:http2 has it.
   */
  readonly maxCancelsPerSecond?: number
  /** Connections open at once, whoever they are from. Default 10,000. */
  readonly maxConnections?: number
  /** A connection that has sent no HTTP/2 preface by then is closed. Default 5 s. */
  readonly prefaceTimeoutMs?: number
  /** A connection that has made no call by then is closed. Default 60 s. */
  readonly firstCallTimeoutMs?: number
  /** The server pings a connection after this long without a sign of life. Default: never. */
  readonly keepaliveMs?: number
  /**
   * Connections are asked to end (GOAWAY) at about this age, so that clients spread over servers anew; calls
   * that are open go on. Default: never.
   */
  readonly maxConnectionAgeMs?: number
  /** What one peer may have under way over all of its connections. Default: no bound. */
  readonly perPeer?: PeerBounds
  /** Told of what is refused because a peer has too much under way, for counting. Must not throw. */
  readonly onExcess?: (excess: Excess) => void
  /** What TLS clients may do that showed no certificate. Default: the same as everybody. */
  readonly strangers?: StrangerLimits
}

/** Bounds on clients that nobody vouches for: little is asked of a server before it knows who asks. */
export interface StrangerLimits {
  /** Connections open at once from one source, an address as `sourceOf` groups them. */
  readonly maxConnectionsPerSource: number
  readonly maxConcurrentStreams: number
  readonly maxRequestBytes: number
  /** Connections are asked to end (GOAWAY) at about this age, */
  readonly maxConnectionAgeMs: number
  /** and are closed when their calls have not ended so much later. */
  readonly graceMs: number
}

export interface ListenerOptions {
  readonly log: Log
  readonly clock: Clock
  readonly limits: ListenerLimits
}

interface Connection {
  readonly peer: Peer
  readonly share: PeerShare
  calls: number
}

const defaultMaxRequestBytes = 4 * 1024 * 1024

/** Lines in ten seconds about peers that have too much under way. */
const excessLines = { perSource: 3, total: 30 }

/** Bytes of the HTTP/2 connection preface and of an empty SETTINGS frame (RFC 9113 §3.4). */
const prefaceBytes = 24 + 9

/**
 * The connections of one listening socket, on their way from `accept` to grpc-js. A kind of listener makes the
 * {@link NetServer}, finds out who has connected, and calls {@link Listener.admit}.
 */
export class Listener {
  /** Calls with a stream of answers that are under way. */
  readonly streams = new Set<ServerCall>()
  readonly #door: Door
  /** Where strangers come in, when their bounds are others. */
  readonly #strangersDoor: Door | undefined
  readonly #strangers = new Map<string, number>()
  readonly #connections = new Map<string, Connection>()
  readonly #sockets = new Set<Socket>()
  /** Local connections that have sent nothing, of which HTTP/2 does not know yet. */
  readonly #silent = new Set<Socket>()
  readonly #options: ListenerOptions
  readonly #closed = new AbortController()
  readonly #shares: PeerShares
  readonly #excessLines: LineLimit
  #server: NetServer | undefined
  #drained: (() => void) | undefined
  #count = 0

  constructor(options: ListenerOptions) {
    const { strangers, ...limits } = options.limits
    this.#options = options
    this.#shares = new PeerShares(limits.perPeer ?? {})
    this.#excessLines = new LineLimit({
      clock: options.clock,
      bounds: excessLines,
      onLeftOut: (leftOut) =>
        options.log.warn({ ...leftOut }, 'more was refused of peers with too much under way'),
    })
    this.#door = newDoor(grpcOptions(limits), limits.maxCancelsPerSecond)
    this.#strangersDoor = strangers && newDoor(strangerOptions({ ...limits, ...strangers }))
    if (limits.perPeer === undefined) return
    for (const { http2 } of this.#doors()) this.#watchCalls(http2)
  }

  /** Serves it to everybody. Before the first connection. */
  addService(methods: ServiceDefinition, calls: UntypedServiceImplementation): void {
    for (const { grpc } of this.#doors()) grpc.addService(methods, calls)
  }

  /** How many connections are open, admitted or not. */
  get size(): number {
    return this.#sockets.size
  }

  /** Takes care of every socket that `server` accepts, and of closing it. */
  attach(server: NetServer): void {
    this.#server = server
    server.maxConnections = this.#options.limits.maxConnections ?? 10_000
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => {
        this.#sockets.delete(socket)
        if (this.#sockets.size === 0) this.#drained?.()
      })
      // Without a listener an error here would end the process; the close that follows says enough.
      socket.on('error', () => {})
    })
  }

  /** Hands an accepted connection to gRPC, with who it is from. */
  admit(socket: Socket, peer: Peer): void {
    if (socket.destroyed) return
    const share = this.#shares.enter(peer)
    if (share === undefined) {
      this.#exceeded('connections', nameOf(peer))
      socket.destroy()
      return
    }
    socket.once('close', () => this.#shares.leave(share))
    const door = this.#doorFor(socket, peer)
    if (door === undefined) return
    const name = `connection-${++this.#count}`
    const connection: Connection = { peer, share, calls: 0 }
    this.#connections.set(name, connection)
    const gone = new AbortController()
    socket.once('close', () => {
      this.#connections.delete(name)
      this.#silent.delete(socket)
      gone.abort(connectionClosed)
    })
    void this.#closeUnlessUsed(socket, connection, gone.signal)
    if (peer.kind !== 'unix') {
      inject(door, socket, name)
      return
    }
    this.#silent.add(socket)
    socket.once('readable', () => {
      this.#silent.delete(socket)
      try {
        injectLocal(door, socket, name)
      } catch (error) {
        const { log } = this.#options
        if (this.#excessLines.admits(share.name)) {
          log.warn({ peer: share.name, error }, 'a connection is closed: it cannot be served')
        }
        socket.destroy()
      }
    })
  }

  /** Undefined: the connection is closed, because its source has too many. */
  #doorFor(socket: Socket, peer: Peer): Door | undefined {
    const { limits, log } = this.#options
    if (limits.strangers === undefined || this.#strangersDoor === undefined) return this.#door
    if (peer.kind !== 'tls' || peer.spiffeId !== undefined) return this.#door
    const source = sourceOf(peer.address)
    const open = this.#strangers.get(source) ?? 0
    if (open >= limits.strangers.maxConnectionsPerSource) {
      log.debug(
        { source },
        'a connection without a certificate is refused: its source has too many',
      )
      socket.destroy()
      return undefined
    }
    this.#strangers.set(source, open + 1)
    socket.once('close', () => {
      const left = (this.#strangers.get(source) ?? 1) - 1
      if (left === 0) this.#strangers.delete(source)
      else this.#strangers.set(source, left)
    })
    return this.#strangersDoor
  }

  /** Counts every call as its peer's before grpc-js sees it. */
  #watchCalls(server: Http2Server): void {
    const serve = server.listeners('stream')
    server.removeAllListeners('stream')
    server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, ...more) => {
      const share = this.#connections.get(stream.session?.socket.remoteAddress ?? '')?.share
      const count = share && this.#takeIn(share, stream, headers)
      if (share !== undefined && count === undefined) return
      for (const listener of serve) listener.call(server, stream, headers, ...more)
      // After grpc-js, which has paused the stream of a call that it serves. Of one that it does not serve nobody reads the
      // request: listening lets it flow away, so that the stream can end.
      if (count !== undefined) stream.on('data', count)
    })
  }

  /** What counts the bytes of a call's request; undefined: the call is refused. */
  #takeIn(
    share: PeerShare,
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
  ): ((data: Uint8Array) => void) | undefined {
    const refuse = (excess: Excess): undefined => {
      this.#exceeded(excess, share.name)
      stream.on('error', () => {})
      // Clients take it for RESOURCE_EXHAUSTED, or for a broken connection while they still send.
      stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM)
    }
    const call = share.begin()
    if (call === undefined) return refuse('calls')
    stream.once('close', call.end)
    // What is compressed can become as long as a request may be.
    const encoding = headers['grpc-encoding'] ?? 'identity'
    if (encoding !== 'identity' && !call.take(this.#maxRequestBytes)) return refuse('request-bytes')
    return (data) => {
      if (!stream.closed && !call.take(data.length)) refuse('request-bytes')
    }
  }

  get #maxRequestBytes(): number {
    return this.#options.limits.maxRequestBytes ?? defaultMaxRequestBytes
  }

  #exceeded(excess: Excess, peer: string): void {
    const { log, limits } = this.#options
    limits.onExcess?.(excess)
    if (!this.#excessLines.admits(peer)) return
    log.warn({ peer, excess }, 'a peer has too much under way: what is more is refused')
  }

  #doors(): readonly Door[] {
    return this.#strangersDoor === undefined ? [this.#door] : [this.#door, this.#strangersDoor]
  }

  /** The peer of the connection that grpc-js names so, at a call that came by it. */
  peer(name: string): Peer | undefined {
    const connection = this.#connections.get(name)
    if (connection === undefined) return undefined
    connection.calls++
    return connection.peer
  }

  async #closeUnlessUsed(socket: Socket, connection: Connection, gone: AbortSignal): Promise<void> {
    const { clock, limits, log } = this.#options
    const { prefaceTimeoutMs = 5_000, firstCallTimeoutMs = 60_000 } = limits
    const signal = AbortSignal.any([gone, this.#closed.signal])
    try {
      await clock.sleep(milliseconds(prefaceTimeoutMs), signal)
      if (socket.bytesRead >= prefaceBytes) {
        await clock.sleep(milliseconds(firstCallTimeoutMs - prefaceTimeoutMs), signal)
        if (connection.calls > 0) return
      }
      log.debug({ peer: connection.peer.kind }, 'a connection that made no call is closed')
      socket.destroy()
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }

  /**
   * Accepts nothing more; tells streams to end and waits for calls, at most `graceMs`; then closes what is left.
   */
  async close(graceMs: number): Promise<void> {
    const server = this.#server
    const closed = server?.listening ? once(server, 'close') : undefined
    server?.close()
    const stopping = new AssayError('unavailable', 'the server is stopping', {
      reason: 'server-stopping',
    })
    for (const call of this.streams) call.abort(stopping)
    // Connections end when their last call has. What grpc-js says about that is not waited for: it is told of
    // the connections that were open, and calls back before they are closed.
    const { promise: drained, resolve } = Promise.withResolvers<void>()
    this.#drained = resolve
    for (const { grpc } of this.#doors()) grpc.tryShutdown(() => {})
    for (const socket of this.#silent) socket.destroy()
    if (this.#sockets.size === 0) resolve()
    const over = new AbortController()
    const grace = this.#options.clock.sleep(milliseconds(graceMs), over.signal)
    await Promise.race([drained, grace.catch(() => {})])
    over.abort()
    this.#closed.abort()
    this.#excessLines[Symbol.dispose]()
    for (const { grpc } of this.#doors()) grpc.forceShutdown()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }
}

/** One for all: nobody sees it, and an error of its own costs a connection several microseconds. */
const connectionClosed = new Error('the connection is closed')

/** A grpc-js server, which has its bounds for all its connections, and the way in. */
interface Door {
  readonly grpc: GrpcServer
  readonly http2: Http2Server
  readonly injector: ConnectionInjector
}

function newDoor(options: ServerOptions, maxCancelsPerSecond?: number): Door {
  const grpc = new GrpcServer(options)
  if (maxCancelsPerSecond !== undefined) {
    // What grpc-js gives to node:http2; it has no option for this part of it.
    const { commonServerOptions } = grpc as unknown as { commonServerOptions: Http2ServerOptions }
    commonServerOptions.streamResetBurst = maxCancelsPerSecond
    commonServerOptions.streamResetRate = maxCancelsPerSecond
  }
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure())
  // Named here and nowhere else: grpc-js shows nobody a call before its request is whole.
  const { http2Servers } = grpc as unknown as { http2Servers: ReadonlyMap<Http2Server, unknown> }
  const [http2] = http2Servers.keys()
  if (http2 === undefined) throw new TypeError('grpc-js has made no server for its injector')
  return { grpc, http2, injector }
}

function inject({ injector }: Door, socket: Socket, name: string): void {
  // grpc-js names a connection by its remote address, the one thing it lets a handler see of it.
  Object.defineProperty(socket, 'remoteAddress', { value: name })
  Object.defineProperty(socket, 'remotePort', { value: undefined })
  injector.injectConnection(socket)
}

/** HTTP/2 reads from the descriptor, and so a connection of which something has to be changed goes by another one. */
function injectLocal(door: Door, socket: Socket, name: string): void {
  const first: Uint8Array | null = socket.read()
  if (first !== null) socket.unshift(first)
  if (first === null || !isFromGrpcJava(first)) {
    inject(door, socket, name)
    return
  }
  const [near, far] = openSocketPair()
  // Two pipelines and HTTP/2 listen to each, and Node would warn at eleven.
  for (const one of [socket, near]) one.setMaxListeners(20)
  // Whatever ends one end ends the other; those who wait are told by HTTP/2.
  pipeline(socket, new SocketPathAuthority(), near, () => {})
  pipeline(near, socket, () => {})
  near.once('close', () => socket.destroySoon())
  inject(door, far, name)
}

function strangerOptions(limits: ListenerLimits & StrangerLimits): ServerOptions {
  return { ...grpcOptions(limits), 'grpc.max_connection_age_grace_ms': limits.graceMs }
}

function grpcOptions(limits: ListenerLimits): ServerOptions {
  const { maxConcurrentStreams = 100, maxRequestBytes = defaultMaxRequestBytes } = limits
  return {
    // The bookkeeping that nobody reads costs a tenth of a call.
    'grpc.enable_channelz': 0,
    'grpc.max_concurrent_streams': maxConcurrentStreams,
    'grpc.max_receive_message_length': maxRequestBytes,
    'grpc.max_send_message_length': -1,
    ...(limits.keepaliveMs !== undefined && { 'grpc.keepalive_time_ms': limits.keepaliveMs }),
    ...(limits.maxConnectionAgeMs !== undefined && {
      'grpc.max_connection_age_ms': limits.maxConnectionAgeMs,
    }),
  }
}

const milliseconds = (value: number): Temporal.Duration =>
  Temporal.Duration.from({ milliseconds: Math.max(0, Math.round(value)) })
