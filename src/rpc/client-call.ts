import {
  type ClientDuplexStream,
  type Client as GrpcClient,
  Metadata,
  type ServiceError,
  type StatusObject,
  status,
} from '@grpc/grpc-js'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { MethodDefinition, Partially } from './service.ts'
import { errorFromStatus, type FailedCall, requestIdHeader } from './status.ts'

/** What may be said about one call. */
export interface CallOptions {
  /** Cancels the call; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal
  /** The server is told, and stops working on it. Default: none. */
  readonly timeoutMs?: number
  /** What the server is to call this call in its log, if it knows us. A UUID. */
  readonly requestId?: string
  /** Request headers, by lower-case name. */
  readonly metadata?: Readonly<Record<string, string>>
}

/** A call with a stream each way. Disposing of it cancels it, if it has not ended. */
export interface BidiCall<Q, S> extends AsyncIterable<S>, Disposable {
  /** Resolves once the message is on its way. @throws AssayError when the server has ended the call badly. */
  send(request: Partially<Q>): Promise<void>
  /** Nothing more will be sent. */
  end(): void
  /** The next answer; undefined when the server has ended the call well. */
  receive(): Promise<S | undefined>
}

/** What a call needs of the connection it goes over. */
export interface Wire {
  readonly grpc: GrpcClient
  readonly clock: Clock
  /** Throws once the connection was closed at this end. */
  readonly checkOpen: () => void
  /** Says where a call was to go that did not get there; returns every other error as it is. */
  readonly explain: (error: AssayError) => AssayError
}

type Method = MethodDefinition & { readonly path: string }

interface Cancellable {
  cancel(): void
}

/** Cancels a call when its signal aborts or its time is up, and then knows why it failed. */
class Limits implements Disposable {
  readonly metadata = new Metadata()
  readonly #wire: Wire
  readonly #ended = new AbortController()
  #why: unknown

  constructor(wire: Wire, options: CallOptions) {
    this.#wire = wire
    wire.checkOpen()
    options.signal?.throwIfAborted()
    for (const [name, value] of Object.entries(options.metadata ?? {}))
      this.metadata.set(name, value)
    if (options.requestId !== undefined) this.metadata.set(requestIdHeader, options.requestId)
    if (options.timeoutMs !== undefined) {
      // Eight digits are all that the header has room for.
      const milliseconds = Math.min(Math.max(1, Math.ceil(options.timeoutMs)), 99_999_999)
      this.metadata.set('grpc-timeout', `${milliseconds}m`)
    }
  }

  apply(call: Cancellable, options: CallOptions): void {
    const cancel = (why: unknown): void => {
      this.#why ??= why
      call.cancel()
    }
    const { signal, timeoutMs } = options
    signal?.addEventListener('abort', () => cancel(signal.reason), { signal: this.#ended.signal })
    if (timeoutMs === undefined) return
    const duration = Temporal.Duration.from({ milliseconds: Math.max(1, Math.ceil(timeoutMs)) })
    this.#wire.clock.sleep(duration, this.#ended.signal).then(
      () => cancel(tooLate(timeoutMs)),
      () => {
        // The call ended first.
      },
    )
  }

  /** The reason for which the call was cancelled here, or what the server said. */
  failure(failed: FailedCall): unknown {
    return this.#why ?? this.#wire.explain(errorFromStatus(failed))
  }

  [Symbol.dispose](): void {
    this.#ended.abort(callEnded)
  }
}

/** One for all: nobody sees it, and an error of its own costs a call several microseconds. */
const callEnded = new Error('the call has ended')

function tooLate(timeoutMs: number): AssayError {
  return new AssayError('unavailable', `the call did not end within ${timeoutMs} ms`, {
    reason: 'deadline-exceeded',
  })
}

function encoder(method: Method) {
  return (message: object) => {
    const bytes = method.requestType.encode(message).finish()
    // biome-ignore lint/style/noRestrictedGlobals: grpc-js copies a message with a method of Buffer; this is a view
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
}

const decoder = (method: Method) => (bytes: Uint8Array) => method.responseType.decode(bytes)

export async function callUnary(
  wire: Wire,
  method: Method,
  call: { readonly request: object; readonly options: CallOptions },
): Promise<unknown> {
  const { request, options } = call
  using limits = new Limits(wire, options)
  const message = method.requestType.fromPartial(request as never)
  return await new Promise((resolve, reject) => {
    const running = wire.grpc.makeUnaryRequest(
      method.path,
      encoder(method),
      decoder(method),
      message,
      limits.metadata,
      (error: ServiceError | null, response?: unknown) => {
        if (error === null) resolve(response)
        else reject(limits.failure(error))
      },
    )
    limits.apply(running, options)
  })
}

/** The call is made when the first answer is asked for, and cancelled when the last one was taken early. */
export async function* callServerStream(
  wire: Wire,
  method: Method,
  call: { readonly request: object; readonly options: CallOptions },
): AsyncGenerator<unknown> {
  const { request, options } = call
  using limits = new Limits(wire, options)
  const stream = wire.grpc.makeServerStreamRequest(
    method.path,
    encoder(method),
    decoder(method),
    method.requestType.fromPartial(request as never),
    limits.metadata,
  )
  // Cancelling below makes an error event, which may come when nobody reads any more.
  stream.on('error', () => {})
  limits.apply(stream, options)
  try {
    yield* stream
  } catch (error) {
    throw limits.failure(error as ServiceError)
  } finally {
    stream.cancel()
  }
}

export function callBidi(
  wire: Wire,
  method: Method,
  options: CallOptions,
): BidiCall<object, unknown> {
  return new Bidi(wire, method, options)
}

class Bidi implements BidiCall<object, unknown> {
  readonly #method: Method
  readonly #limits: Limits
  readonly #stream: ClientDuplexStream<object, unknown>
  readonly #answers: AsyncIterator<unknown>
  /** Rejects when the server ends the call badly. */
  readonly #failed: Promise<never>
  #failure: { readonly error: unknown } | undefined

  constructor(wire: Wire, method: Method, options: CallOptions) {
    this.#method = method
    this.#limits = new Limits(wire, options)
    this.#stream = wire.grpc.makeBidiStreamRequest(
      method.path,
      encoder(method),
      decoder(method),
      this.#limits.metadata,
    )
    const { promise, reject } = Promise.withResolvers<never>()
    this.#failed = promise
    promise.catch(() => {})
    this.#stream.on('error', () => {})
    // The error event may come before anybody reads, and is then lost; the status is kept.
    this.#stream.on('status', (ended: StatusObject) => {
      if (ended.code !== status.OK) {
        this.#failure = { error: this.#limits.failure(ended) }
        reject(this.#failure.error)
      }
      this.#limits[Symbol.dispose]()
    })
    this.#limits.apply(this.#stream, options)
    this.#answers = this.#stream.iterator({ destroyOnReturn: false })
  }

  async send(request: object): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error
    const message = this.#method.requestType.fromPartial(request as never)
    const sent = new Promise<void>((resolve) => {
      this.#stream.write(message, () => resolve())
    })
    await Promise.race([sent, this.#failed])
  }

  end(): void {
    this.#stream.end()
  }

  async receive(): Promise<unknown> {
    try {
      const next = await this.#answers.next()
      if (next.done !== true) return next.value
    } catch (error) {
      throw this.#failure?.error ?? this.#limits.failure(error as ServiceError)
    }
    if (this.#failure !== undefined) throw this.#failure.error
    return undefined
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<unknown> {
    try {
      for (;;) {
        const answer = await this.receive()
        if (answer === undefined) return
        yield answer
      }
    } finally {
      this[Symbol.dispose]()
    }
  }

  [Symbol.dispose](): void {
    this.#stream.cancel()
    this.#limits[Symbol.dispose]()
  }
}
