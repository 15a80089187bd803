import type { CallContext, Encoded } from './call.ts'

/** How one kind of message is written and read; each message that ts-proto generates is one. */
export interface MessageType<T> {
  encode(message: T): { finish(): Uint8Array }
  decode(bytes: Uint8Array): T
  /** Fills in the defaults. */
  fromPartial(message: never): T
}

/** One method of a generated `…Definition`. */
export interface MethodDefinition {
  readonly name: string
  // biome-ignore lint/suspicious/noExplicitAny: the message types of a method are known to its definition only
  readonly requestType: MessageType<any>
  readonly requestStream: boolean
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly responseType: MessageType<any>
  readonly responseStream: boolean
}

/** What ts-proto generates for a service: `EntryDefinition`. */
export interface ServiceDefinition {
  readonly name: string
  /** With its package: `spire.api.server.entry.v1.Entry`. */
  readonly fullName: string
  readonly methods: Readonly<Record<string, MethodDefinition>>
}

export type Request<M extends MethodDefinition> =
  M['requestType'] extends MessageType<infer T> ? T : never

export type Response<M extends MethodDefinition> =
  M['responseType'] extends MessageType<infer T> ? T : never

/** A message of which only what differs from the default is given. */
export type Partially<T> = T extends Uint8Array | string | number | bigint | boolean | undefined
  ? T
  : T extends ReadonlyMap<infer K, infer V>
    ? ReadonlyMap<K, V>
    : T extends readonly (infer U)[]
      ? readonly Partially<U>[]
      : T extends { readonly $case: string; readonly value: infer V }
        ? { readonly $case: T['$case']; readonly value: Partially<V> }
        : { readonly [K in keyof T]?: Partially<T[K]> | undefined }

/** A function that answers the calls of one method. */
export type Handler<M extends MethodDefinition> = M extends { readonly requestStream: false }
  ? M extends { readonly responseStream: false }
    ? (request: Request<M>, context: CallContext) => Promise<Response<M> | Encoded>
    : (request: Request<M>, context: CallContext) => AsyncIterable<Response<M> | Encoded>
  : M extends { readonly responseStream: true }
    ? (
        requests: AsyncIterable<Request<M>>,
        context: CallContext,
      ) => AsyncIterable<Response<M> | Encoded>
    : never

/** The methods a service answers, by their names in lower camel case. One that is left out is UNIMPLEMENTED. */
export type Handlers<D extends ServiceDefinition> = {
  readonly [K in keyof D['methods']]?: Handler<D['methods'][K]>
}

/** A call on its way to its handler. */
export interface InterceptedCall {
  /** The same object the handler gets: what an interceptor finds out can be kept for it in a WeakMap. */
  readonly context: CallContext
  /**
   * The message; undefined for a method that takes a stream. It is decoded when it is first asked for, which is
   * better done after the caller was found to be allowed to call: that costs more than it does to send.
   *
   * @throws AssayError `invalid-argument`, reason `malformed-request`.
   */
  readonly request: unknown
  /** How many fields the message has, as {@link countFields} does; zero for a method that takes a stream. */
  readonly fields: number
}

/**
 * Stands around every call of a server, the first one added outermost. `next` runs the rest; it resolves when
 * the handler has returned or its stream has ended, and rejects with what either threw. Throwing instead of
 * calling `next` refuses the call; what is thrown is what the client gets.
 */
export type Interceptor = (call: InterceptedCall, next: () => Promise<void>) => Promise<void>

/** `/package.Service/Method`. */
export function methodPath(service: ServiceDefinition, method: MethodDefinition): string {
  return `/${service.fullName}/${method.name}`
}
