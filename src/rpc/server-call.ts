import type { Metadata } from '@grpc/grpc-js'
import type { AssayError } from '#base/errors.ts'
import { type Random, randomUuid } from '#base/random.ts'
import type { CallContext, Peer } from './call.ts'
import { requestIdHeader } from './status.ts'

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** What a {@link ServerCall} is made of. */
export interface ServerCallOptions {
  readonly peer: Peer
  readonly method: string
  readonly headers: Metadata
  readonly random: Random
}

/** The context of one call that is being answered. What costs something is made when it is first asked for. */
export class ServerCall implements CallContext {
  readonly peer: Peer
  readonly method: string
  readonly #headers: Metadata
  readonly #random: Random
  #abort: AbortController | undefined
  #abortReason: AssayError | undefined
  #requestId: string | undefined
  #isAnswered = false

  constructor(options: ServerCallOptions) {
    this.peer = options.peer
    this.method = options.method
    this.#headers = options.headers
    this.#random = options.random
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.#abortReason !== undefined) this.#abort.abort(this.#abortReason)
    }
    return this.#abort.signal
  }

  get requestId(): string {
    this.#requestId ??= this.#givenId() ?? randomUuid(this.#random)
    return this.#requestId
  }

  /** A stranger must not be able to write somebody else's id into the log. */
  #givenId(): string | undefined {
    if (this.peer.kind !== 'tls' || this.peer.spiffeId === undefined) return undefined
    const [id = ''] = this.metadata(requestIdHeader)
    return uuid.test(id) ? id : undefined
  }

  get aborted(): boolean {
    return this.#abortReason !== undefined
  }

  metadata(name: string): readonly string[] {
    return this.#headers.get(name).filter((value) => typeof value === 'string')
  }

  /** Aborts the signal, once, unless the call has its answer. */
  abort(reason: AssayError): void {
    if (this.#isAnswered || this.#abortReason !== undefined) return
    this.#abortReason = reason
    this.#abort?.abort(reason)
  }

  /** The answer is on its way: nothing that happens from now on concerns the handler. */
  answered(): void {
    this.#isAnswered = true
  }
}
