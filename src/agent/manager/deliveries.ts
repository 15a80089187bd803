import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { X509Svid } from './x509-svid.ts'

/** What the bundles of a stream let its workload verify. */
export type Verifies = 'x509' | 'jwt'

/** What a message of a stream holds, as far as the rotation of authorities is concerned. */
export interface Content {
  /** The own one. */
  readonly bundle: Bundle
  readonly svids: readonly X509Svid[]
}

/** Who reads a stream, for the log. */
export interface Reader {
  readonly pid: number
  readonly uid: number
}

/** One stream of the Workload API, until it is disposed of. */
export interface Delivery extends Disposable {
  /** `content` is on its way. */
  offer(content: Content): void
  /** What was offered has gone to the socket. */
  taken(): void
  /** `content` reads like what was sent last, and is not sent again. */
  unchanged(content: Content): void
  /** There is nothing to send until an SVID is signed. */
  nothing(): void
}

/** What all open streams together have been sent. */
export interface Survey {
  /** The lowest sequence number among the bundles that workloads have; undefined: there is no stream. */
  readonly sequenceNumber: bigint | undefined
  /** What workloads have, held by the agent or not. The same one may come more than once. */
  readonly svids: Iterable<X509Svid>
  /** When the first message that is unread now is waited for no longer. Unix time; undefined: there is none. */
  readonly lapsesAtMs: number | undefined
}

export interface DeliveriesOptions {
  /** Called when workloads may have something else than before. */
  readonly onChanged: () => void
  readonly clock: Clock
  readonly log: Log
}

/**
 * How long a message may stay unread. A workload that does not read its stream must not hold up the rotation of a whole
 * trust domain: after this it is passed over, until it reads.
 */
const unreadLimitMs = 10_000

/**
 * What each open stream of the Workload API has been sent. By it an SVID waits until the verifiers on this node know
 * its authority, and the agent can tell the server what its workloads have.
 */
export class Deliveries {
  readonly #options: DeliveriesOptions
  readonly #streams = new Set<Stream>()
  readonly #waiting = new Set<() => void>()
  readonly #book: Book = {
    edition: 0,
    nowMs: () => this.#nowMs(),
    changed: () => this.#changed(),
    closed: (stream) => void this.#streams.delete(stream),
  }

  constructor(options: DeliveriesOptions) {
    this.#options = options
  }

  open(verifies: Verifies, reader: Reader | undefined): Delivery {
    const stream = new Stream(this.#book, { verifies, reader })
    this.#streams.add(stream)
    return stream
  }

  /** What there is to send has changed: until it is sent, a stream is behind. */
  advance(): void {
    this.#book.edition += 1
  }

  survey(): Survey {
    const streams = this.#counted()
    const numbers = streams.flatMap(({ bundle }) => bundle?.sequenceNumber ?? [])
    const unread = streams.flatMap(({ unreadSinceMs }) => unreadSinceMs ?? [])
    return {
      sequenceNumber: numbers.reduce<bigint | undefined>(lower, undefined),
      svids: new Set(streams.flatMap((stream) => stream.contents)).values().flatMap((c) => c.svids),
      lapsesAtMs: unread.length === 0 ? undefined : Math.min(...unread) + unreadLimitMs,
    }
  }

  /**
   * Waits until `knows` is true of the bundle that each stream which verifies such SVIDs was sent last, for as long as a
   * message may stay unread.
   */
  async untilKnown(
    options: { readonly verifies: Verifies; readonly knows: (bundle: Bundle) => boolean },
    signal: AbortSignal,
  ): Promise<void> {
    const lags = (): boolean => this.#counted().some((stream) => stream.lags(options))
    if (!lags()) return
    const { clock } = this.#options
    const done = new AbortController()
    const { promise, resolve } = Promise.withResolvers<void>()
    const look = (): void => {
      if (!lags()) resolve()
    }
    this.#waiting.add(look)
    const limit = clock.sleep(
      Temporal.Duration.from({ milliseconds: unreadLimitMs }),
      AbortSignal.any([signal, done.signal]),
    )
    try {
      await Promise.race([promise, limit])
    } finally {
      this.#waiting.delete(look)
      done.abort()
      limit.catch(() => {})
    }
  }

  /** The streams that are waited for. */
  #counted(): Stream[] {
    const nowMs = this.#nowMs()
    return [...this.#streams].filter((stream) => {
      if (!stream.isUnread(nowMs)) return true
      this.#tell(stream)
      return false
    })
  }

  #tell(stream: Stream): void {
    const { reader, isTold } = stream
    if (isTold) return
    stream.isTold = true
    this.#options.log.warn(
      { pid: reader?.pid, uid: reader?.uid },
      'a workload does not read its stream of the Workload API; rotations do not wait for it',
    )
  }

  #changed(): void {
    for (const look of this.#waiting) look()
    this.#options.onChanged()
  }

  #nowMs(): number {
    return this.#options.clock.now().epochMilliseconds
  }
}

/** What all streams have in common. */
interface Book {
  /** Counts what there has been to send. */
  edition: number
  nowMs(): number
  /** Workloads may have something else than before. */
  changed(): void
  closed(stream: Stream): void
}

class Stream implements Delivery {
  readonly reader: Reader | undefined
  readonly #verifies: Verifies
  readonly #book: Book
  #sent: Content | undefined
  #offered: Content | undefined
  #unreadSinceMs = 0
  #isWaiting = false
  #edition = 0
  /** Whether the log has said that it is not read. */
  isTold = false

  constructor(
    book: Book,
    { verifies, reader }: { readonly verifies: Verifies; readonly reader: Reader | undefined },
  ) {
    this.#book = book
    this.#verifies = verifies
    this.reader = reader
  }

  /** The one that the workload goes by, or will when it begins to read; undefined: it has nothing yet. */
  get bundle(): Bundle | undefined {
    return (this.#sent ?? this.#offered)?.bundle
  }

  /** What it has and what is on its way to it. */
  get contents(): readonly Content[] {
    return [this.#sent, this.#offered].filter((content) => content !== undefined)
  }

  /** Unix time; undefined: all is read. */
  get unreadSinceMs(): number | undefined {
    return this.#offered === undefined ? undefined : this.#unreadSinceMs
  }

  /** Whether a message has been left unread for too long. A clock that was set back makes nobody wait longer. */
  isUnread(nowMs: number): boolean {
    const elapsedMs = nowMs - this.#unreadSinceMs
    return this.#offered !== undefined && (elapsedMs < 0 || elapsedMs >= unreadLimitMs)
  }

  /** A stream that has to wait for an SVID itself cannot be waited for: its bundle comes with that SVID. */
  lags(of: { readonly verifies: Verifies; readonly knows: (bundle: Bundle) => boolean }): boolean {
    const { bundle } = this
    if (of.verifies !== this.#verifies || this.#isWaiting) return false
    return bundle !== undefined && !of.knows(bundle)
  }

  offer(content: Content): void {
    this.#isWaiting = false
    this.#edition = this.#book.edition
    this.#offered = content
    this.#unreadSinceMs = this.#book.nowMs()
  }

  taken(): void {
    const isFirst = this.#sent === undefined
    this.#sent = this.#offered
    this.#offered = undefined
    // What is sent first is what the agent holds: nothing has changed by it, unless it took the workload long to read.
    if (!isFirst || this.#isBehind()) this.#book.changed()
  }

  unchanged(content: Content): void {
    this.#isWaiting = false
    this.#edition = this.#book.edition
    if (this.#sent === content) return
    this.#sent = content
    this.#book.changed()
  }

  nothing(): void {
    if (this.#isWaiting) return
    this.#isWaiting = true
    this.#book.changed()
  }

  [Symbol.dispose](): void {
    this.#book.closed(this)
    if (this.#offered !== undefined || this.#isBehind()) this.#book.changed()
  }

  #isBehind(): boolean {
    return this.#sent !== undefined && this.#edition !== this.#book.edition
  }
}

function lower(a: bigint | undefined, b: bigint): bigint {
  return a === undefined || b < a ? b : a
}
