import { AssayError } from '#base/errors.ts'
import type { Deadlines } from '../deadlines.ts'

/** How many callers may wait for a session, and for how long. */
export interface SessionPoolLimits {
  readonly queueLength: number
  readonly waitMs: number
}

interface Waiter<Session> {
  readonly take: (session: Session) => void
  readonly refuse: (why: AssayError) => void
}

/**
 * Lends each session to one caller at a time, because PKCS#11 allows one operation per session. Sessions go
 * round in turn, so that a request tried again meets another one.
 */
export class SessionPool<Session> {
  readonly #limits: SessionPoolLimits
  readonly #deadlines: Deadlines
  readonly #idle: Session[]
  readonly #waiting = new Set<Waiter<Session>>()
  #lent = 0
  #closed: AssayError | undefined
  #drained: (() => void) | undefined

  constructor(sessions: readonly Session[], limits: SessionPoolLimits, deadlines: Deadlines) {
    this.#idle = [...sessions]
    this.#limits = limits
    this.#deadlines = deadlines
  }

  /** The sessions nobody uses now. */
  get idle(): readonly Session[] {
    return this.#idle
  }

  /** @throws AssayError `unavailable` when the queue is full, the wait too long or the pool closed. */
  async take(): Promise<Session> {
    if (this.#closed !== undefined) throw this.#closed
    const session = this.#idle.shift()
    if (session === undefined) return this.#wait()
    this.#lent++
    return session
  }

  /** Returns what {@link take} gave, or a fresh session in its place; undefined when it is lost. */
  give(session: Session | undefined): void {
    this.#lent--
    if (session !== undefined) {
      const next = this.#waiting.values().next().value
      if (next === undefined) this.#idle.push(session)
      else next.take(session)
    }
    if (this.#lent === 0) this.#drained?.()
  }

  /** Refuses whoever waits or comes, and resolves once every lent session is back. */
  async close(why: AssayError): Promise<void> {
    this.#closed = why
    for (const waiter of this.#waiting) waiter.refuse(why)
    if (this.#lent === 0) return
    await new Promise<void>((resolve) => {
      this.#drained = resolve
    })
  }

  #wait(): Promise<Session> {
    const { queueLength, waitMs } = this.#limits
    if (this.#waiting.size >= queueLength) {
      throw new AssayError('unavailable', `hsm is overloaded: ${queueLength} requests wait already`)
    }
    return new Promise((resolve, reject) => {
      const leave = () => {
        cancelDeadline()
        this.#waiting.delete(waiter)
      }
      const waiter: Waiter<Session> = {
        take: (session) => {
          leave()
          this.#lent++
          resolve(session)
        },
        refuse: (why) => {
          leave()
          reject(why)
        },
      }
      const cancelDeadline = this.#deadlines.start(waitMs, () =>
        waiter.refuse(
          new AssayError('unavailable', `hsm is overloaded: no session free within ${waitMs} ms`),
        ),
      )
      this.#waiting.add(waiter)
    })
  }
}
