import {
  type MethodDefinition as GrpcMethod,
  type handleUnaryCall,
  Metadata,
  type ServerDuplexStream,
  type ServerWritableStream,
  status,
  type UntypedHandleCall,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { Encoded, type Peer } from './call.ts'
import { countFields } from './message-fields.ts'
import { ServerCall } from './server-call.ts'
import {
  type Handlers,
  type InterceptedCall,
  type Interceptor,
  type MessageType,
  type MethodDefinition,
  methodPath,
  type ServiceDefinition,
} from './service.ts'
import { errorTrailers, type FailedCall, wireStatus } from './status.ts'

/** What dispatching a call needs of the listener it came in by. */
export interface DispatchOptions {
  readonly log: Log
  readonly random: Random
  readonly interceptors: readonly Interceptor[]
  /** The peer of a connection by the name `getPeer()` gives it; undefined once it is closed. */
  readonly peer: (connection: string) => Peer | undefined
  /** Holds every stream that is being answered, so that stopping can tell them. */
  readonly streams: Set<ServerCall>
}

type Handle = (input: unknown, context: ServerCall) => unknown
type UnaryCall = Parameters<handleUnaryCall<unknown, unknown>>[0]
type Respond = Parameters<handleUnaryCall<unknown, unknown>>[1]
type OneRequest = ServerWritableStream<unknown, unknown>
type ManyRequests = ServerDuplexStream<unknown, unknown>
type StreamCall = OneRequest | ManyRequests

/** A service as grpc-js wants it: its methods, and for each a function that runs our handler. */
export function dispatchService(
  service: ServiceDefinition,
  handlers: Handlers<ServiceDefinition>,
  options: DispatchOptions,
): { methods: Record<string, GrpcMethod<unknown, unknown>>; calls: UntypedServiceImplementation } {
  const methods: Record<string, GrpcMethod<unknown, unknown>> = {}
  const calls: UntypedServiceImplementation = {}
  for (const [key, definition] of Object.entries(service.methods)) {
    const method = { ...definition, path: methodPath(service, definition) }
    const handle = handlers[key] as Handle | undefined
    methods[key] = grpcMethod(method)
    calls[key] = dispatchMethod(
      method,
      handle?.bind(handlers) ?? unimplemented(method.path),
      options,
    )
  }
  return { methods, calls }
}

function grpcMethod(
  method: MethodDefinition & { readonly path: string },
): GrpcMethod<unknown, unknown> {
  return {
    path: method.path,
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    // A message is decoded by the handler's side, once it is known that its sender may call.
    requestDeserialize: (bytes) => bytes,
    // Responses are encoded before grpc-js sees them, so that one that cannot be is told like any other error.
    responseSerialize: (bytes) => bytes as never,
    requestSerialize: neverClient,
    responseDeserialize: neverClient,
  }
}

function neverClient(): never {
  throw new TypeError('a server does not encode requests')
}

function decoded(type: MessageType<unknown>, bytes: Uint8Array): unknown {
  try {
    return type.decode(bytes)
  } catch (cause) {
    throw malformed(cause)
  }
}

function malformed(cause: unknown): AssayError {
  return new AssayError('invalid-argument', 'cannot decode the request: it is not well-formed', {
    reason: 'malformed-request',
    cause,
  })
}

/** A call whose one message is decoded when it is first looked at. */
function intercepted(
  context: ServerCall,
  type: MessageType<unknown>,
  bytes: Uint8Array,
): InterceptedCall {
  let request: unknown
  return {
    context,
    get request() {
      request ??= decoded(type, bytes)
      return request
    },
    get fields() {
      return countFields(bytes)
    },
  }
}

function encoded(method: MethodDefinition, message: unknown): Uint8Array {
  const bytes =
    message instanceof Encoded ? message.bytes : method.responseType.encode(message).finish()
  // biome-ignore lint/style/noRestrictedGlobals: grpc-js copies a message with a method of Buffer; this is a view
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function unimplemented(path: string): Handle {
  return () => {
    throw new AssayError('unimplemented', `cannot call ${path}: this server does not implement it`)
  }
}

function dispatchMethod(
  method: MethodDefinition & { readonly path: string },
  handle: Handle,
  options: DispatchOptions,
): UntypedHandleCall {
  if (!method.responseStream) {
    return (call: UnaryCall, respond: Respond) =>
      void answerOne({ method, handle, options, call }, respond)
  }
  return (call: StreamCall) => void answerMany({ method, handle, options, call })
}

interface Answer<Call> {
  readonly method: MethodDefinition & { readonly path: string }
  readonly handle: Handle
  readonly options: DispatchOptions
  readonly call: Call
}

async function answerOne(answer: Answer<UnaryCall>, respond: Respond): Promise<void> {
  const { method, handle, options, call } = answer
  const context = contextOf(answer)
  if (context === undefined) return respond(connectionClosed, null)
  call.on('cancelled', () => context.abort(callerGone))
  try {
    const received = intercepted(context, method.requestType, call.request as Uint8Array)
    let response: unknown
    await intercept(options.interceptors, received, async () => {
      response = await handle(received.request, context)
    })
    const bytes = encoded(method, response)
    context.answered()
    respond(null, bytes)
  } catch (error) {
    context.answered()
    respond(failure(error, context, options.log), null)
  }
}

async function answerMany(answer: Answer<StreamCall>): Promise<void> {
  const { method, handle, options, call } = answer
  // A cancelled call's stream is destroyed by grpc-js, and an error there is nobody's to be told.
  call.on('error', () => {})
  const context = contextOf(answer)
  if (context === undefined) {
    call.emit('error', connectionClosed)
    return
  }
  call.on('cancelled', () => context.abort(callerGone))
  options.streams.add(context)
  try {
    const received = method.requestStream
      ? { context, request: undefined, fields: 0 }
      : intercepted(context, method.requestType, (call as OneRequest).request as Uint8Array)
    await intercept(options.interceptors, received, async () => {
      const input = method.requestStream
        ? incoming(call as ManyRequests, method.requestType, context)
        : received.request
      const responses = handle(input, context) as AsyncIterable<unknown>
      for await (const response of untilAborted(responses, context.signal)) {
        await written(call, encoded(method, response), context.signal)
      }
    })
    context.answered()
    call.end()
  } catch (error) {
    context.answered()
    // The stream is gone, and nobody is left who could be told.
    if (error === callerGone) return
    call.emit('error', failure(error, context, options.log))
  } finally {
    options.streams.delete(context)
  }
}

const connectionClosed = {
  code: status.UNAVAILABLE,
  details: 'the connection is closed',
  metadata: new Metadata(),
} as const

function contextOf({
  method,
  options,
  call,
}: Answer<UnaryCall | StreamCall>): ServerCall | undefined {
  const peer = options.peer(call.getPeer())
  if (peer === undefined) return undefined
  const { random } = options
  return new ServerCall({ peer, method: method.path, headers: call.metadata, random })
}

/** One for all: most streams end so, and an error of its own costs more than all else about it. */
const callerGone = new AssayError(
  'unavailable',
  'the caller cancelled the call, went away, or let its deadline pass',
  { reason: 'cancelled' },
)

/** Runs `handler` with the interceptors around it, the first one outermost. */
function intercept(
  interceptors: readonly Interceptor[],
  call: InterceptedCall,
  handler: () => Promise<void>,
  index = 0,
): Promise<void> {
  const interceptor = interceptors[index]
  if (interceptor === undefined) return handler()
  return interceptor(call, () => intercept(interceptors, call, handler, index + 1))
}

/** Of one message of a stream. Nobody is limited before that, and few items are asked for at a time. */
const maxStreamedFields = 10_000

const tooManyFields = (): AssayError =>
  new AssayError(
    'resource-exhausted',
    `cannot take a message of more than ${maxStreamedFields} fields in a stream`,
    { reason: 'too-many-fields' },
  )

async function* incoming(
  call: ManyRequests,
  type: MessageType<unknown>,
  context: ServerCall,
): AsyncGenerator<unknown> {
  try {
    // Leaving off reading must not close the half that is written.
    for await (const bytes of call.iterator({ destroyOnReturn: false })) {
      if (countFields(bytes) > maxStreamedFields) throw tooManyFields()
      yield decoded(type, bytes)
    }
  } catch (error) {
    context.signal.throwIfAborted()
    throw error
  }
}

/** The items of `source` until `signal` aborts, and then its reason, however long `source` would still wait. */
export async function* untilAborted<T>(
  source: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]()
  let interrupt = (_reason: unknown): void => {}
  const onAbort = (): void => interrupt(signal.reason)
  signal.addEventListener('abort', onAbort)
  let ended = false
  try {
    for (;;) {
      signal.throwIfAborted()
      const next = await new Promise<IteratorResult<T>>((resolve, reject) => {
        interrupt = reject
        iterator.next().then(resolve, reject)
      })
      if (next.done === true) {
        ended = true
        return
      }
      yield next.value
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    // Not awaited: a generator that is waiting for something hears of this only once that has come.
    if (!ended) iterator.return?.().catch(() => {})
  }
}

/** Resolves once the message has gone to the socket, so that a slow reader holds back whoever produces. */
function written(call: StreamCall, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    call.write(bytes, (error: Error | null | undefined) => {
      signal.removeEventListener('abort', onAbort)
      if (error) reject(error)
      else resolve()
    })
  })
}

function failure(error: unknown, context: ServerCall, log: Log): FailedCall {
  const { code, message } = wireStatus(error)
  const fields = { error, method: context.method, requestId: context.requestId }
  if (code === status.INTERNAL) log.error(fields, 'a call failed by a fault of ours')
  else log.debug(fields, 'a call was refused')
  return { code, details: message, metadata: errorTrailers(error, context.requestId) }
}
