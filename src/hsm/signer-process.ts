import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Deadlines } from './deadlines.ts'
import { type Frame, FrameReader, FrameWriter } from './frame.ts'
import { frameKind, parseFailure, parseSignerEvent, type SignerEvent } from './protocol.ts'
import { type SignerEnd, type SignerLink, type SignerStart, startSigner } from './signer-link.ts'

/** Requests that may be under way at once; the signer itself queues fewer. */
const maxPending = 1024

/** What a module may print in one life of its process before it is ignored. */
const maxPrintedLines = 200
const maxPrintedLength = 500

/** How long an orderly end may take before it is made short. */
const closeLimitMs = 2000

/** What a signer process is started with. */
export interface SignerProcessOptions {
  readonly start: SignerStart
  /** Calls that may block at a time, where that is ours to say. */
  readonly poolThreads: number
  readonly deadlines: Deadlines
  readonly log: Log
  readonly onEvent: (event: SignerEvent) => void
}

/** The requests of one kind: how many are unanswered, and how many were answered in all. */
export interface Ledger {
  owed: number
  answered: number
}

interface Pending {
  readonly ledger: Ledger
  readonly resolve: (result: Uint8Array) => void
  readonly reject: (error: AssayError) => void
  readonly cancelDeadline: () => void
}

/** One life of the signer: a process, ours or a service's, and the requests it owes an answer to. */
export class SignerProcess {
  /** Resolves once the process is gone and every request has been rejected; the first reason there was is told. */
  readonly ended: Promise<SignerEnd>
  readonly #options: SignerProcessOptions
  readonly #link: SignerLink
  readonly #writer: FrameWriter
  readonly #pending = new Map<number, Pending>()
  readonly #ledgers = new Map<number, Ledger>()
  #lastId = 0
  #why: string | undefined
  #wasEnded = false
  #cancelKill: (() => void) | undefined

  constructor(options: SignerProcessOptions) {
    this.#options = options
    this.#link = startSigner(options.start, options.poolThreads)
    const { socket, printed, ended } = this.#link
    this.#writer = new FrameWriter((bytes) => socket.write(bytes))
    const reader = new FrameReader()
    socket.on('data', (chunk: Uint8Array) => {
      try {
        for (const frame of reader.read(chunk)) this.#receive(frame)
      } catch (error) {
        this.kill(`the signer broke the protocol: ${messageOf(error)}`)
      }
    })
    // It may have died with something unread, which is no doing of ours: how it ended says more.
    socket.on('error', () => this.#link.kill())
    socket.on('close', () => {
      this.#rejectAll()
      this.#limitEnding()
    })
    for (const stream of printed) this.#logPrinted(stream)
    this.ended = ended.then(({ why, needsOperator }) => {
      this.#why ??= why
      this.#cancelKill?.()
      this.#rejectAll()
      return { why: this.#why, needsOperator }
    })
  }

  /** Undefined when it could not be started, or is another's child. */
  get pid(): number | undefined {
    return this.#link.pid
  }

  /** Whether it was told to end, or made to. */
  get wasEnded(): boolean {
    return this.#wasEnded
  }

  /** What this signer owes and has given of one kind of request. */
  ledger(kind: number): Readonly<Ledger> {
    return this.#ledger(kind)
  }

  /** Sends what is not answered. */
  tell(kind: number, body: Uint8Array = new Uint8Array()): void {
    if (this.#link.socket.writable) this.#writer.send(kind, 0, body)
  }

  /**
   * Sends a request whose body is `parts` in order. An answer that does not come within `limitMs` ends the
   * process: a call that hangs in a module cannot be taken back.
   *
   * @throws AssayError as the signer words it, or `unavailable`.
   */
  request(kind: number, limitMs: number, ...parts: readonly Uint8Array[]): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#why !== undefined || !this.#link.socket.writable) return reject(this.#gone())
      if (this.#pending.size >= maxPending) {
        return reject(
          new AssayError('unavailable', `hsm is overloaded: ${maxPending} requests wait`),
        )
      }
      const id = this.#nextId()
      const cancelDeadline = this.#options.deadlines.start(limitMs, () => {
        this.kill(`the hsm did not answer within ${limitMs} ms`)
      })
      const ledger = this.#ledger(kind)
      ledger.owed++
      this.#pending.set(id, { ledger, resolve, reject, cancelDeadline })
      this.#writer.send(kind, id, ...parts)
    })
  }

  /** Ends the process at once. The first reason given is the one that is told. */
  kill(why: string): void {
    this.#why ??= why
    this.#wasEnded = true
    this.#link.kill()
    this.#rejectAll()
  }

  /** Ends the process in order, or after two seconds at once. */
  async close(): Promise<void> {
    this.#why ??= 'the hsm client is closed'
    this.#wasEnded = true
    this.#link.socket.end()
    this.#limitEnding()
    this.#rejectAll()
    await this.ended
  }

  /** What has no socket is ending; what then stays is stuck. */
  #limitEnding(): void {
    this.#cancelKill ??= this.#options.deadlines.start(closeLimitMs, () =>
      this.kill('the signer did not end'),
    )
  }

  #ledger(kind: number): Ledger {
    let ledger = this.#ledgers.get(kind)
    if (ledger === undefined) {
      ledger = { owed: 0, answered: 0 }
      this.#ledgers.set(kind, ledger)
    }
    return ledger
  }

  #nextId(): number {
    this.#lastId = this.#lastId === 0xffffffff ? 1 : this.#lastId + 1
    return this.#lastId
  }

  #receive(frame: Frame): void {
    if (frame.kind === frameKind.event) {
      this.#options.onEvent(parseSignerEvent(frame.body))
      return
    }
    const pending = this.#pending.get(frame.id)
    if (pending === undefined) throw new RangeError(`answer to unknown request ${frame.id}`)
    if (frame.kind === frameKind.result) {
      this.#settle(frame.id, pending)
      pending.resolve(new Uint8Array(frame.body))
    } else if (frame.kind === frameKind.failure) {
      const { code, message } = parseFailure(frame.body)
      this.#settle(frame.id, pending)
      pending.reject(new AssayError(code, `hsm: ${message}`))
    } else {
      throw new RangeError(`unknown frame kind ${frame.kind}`)
    }
  }

  #settle(id: number, pending: Pending): void {
    this.#pending.delete(id)
    pending.ledger.owed--
    pending.ledger.answered++
    pending.cancelDeadline()
  }

  #rejectAll(): void {
    for (const [id, pending] of this.#pending) {
      this.#settle(id, pending)
      pending.reject(this.#gone())
    }
  }

  #gone(): AssayError {
    return new AssayError(
      'unavailable',
      `hsm is not available: ${this.#why ?? 'the signer is ending'}`,
    )
  }

  #logPrinted(stream: Readable): void {
    let lines = 0
    createInterface({ input: stream }).on('line', (line) => {
      if (++lines > maxPrintedLines) return
      this.#options.log.warn(
        { line: line.slice(0, maxPrintedLength) },
        'signer or its module printed',
      )
    })
  }
}
