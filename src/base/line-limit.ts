import type { Clock } from './clock.ts'

/** How many lines are written in each {@link windowSeconds}. */
export interface LineBounds {
  /** Of one source: a user, an address, a SPIFFE ID. */
  readonly perSource: number
  /** Of all together; also how many sources are told apart. */
  readonly total: number
}

/** What was not written. */
export interface LeftOut {
  readonly lines: number
  readonly seconds: number
  /** Those that most lines were of, at most five; `others` stands for what was not told apart. */
  readonly sources: Readonly<Record<string, number>>
}

/** How long a window is in which lines are counted. */
const windowSeconds = 10

const others = 'others'
const mostNamed = 5

/**
 * Bounds the lines of one kind that anybody can bring about, so that a caller in a loop neither fills a disk nor makes
 * the journal drop what others wrote. What is left out is told once at the end of a window.
 */
export class LineLimit implements Disposable {
  readonly #clock: Clock
  readonly #bounds: LineBounds
  readonly #onLeftOut: (leftOut: LeftOut) => void
  readonly #closed = new AbortController()
  #endsAtMs = Number.NEGATIVE_INFINITY
  #written = 0
  readonly #bySource = new Map<string, number>()
  readonly #leftOut = new Map<string, number>()

  constructor(options: {
    readonly clock: Clock
    readonly bounds: LineBounds
    readonly onLeftOut: (leftOut: LeftOut) => void
  }) {
    this.#clock = options.clock
    this.#bounds = options.bounds
    this.#onLeftOut = options.onLeftOut
  }

  /** Whether a line about `source` is to be written. */
  admits(source: string): boolean {
    const nowMs = this.#clock.now().epochMilliseconds
    // A clock that was set back begins a new window too.
    if (nowMs >= this.#endsAtMs || nowMs < this.#endsAtMs - windowSeconds * 1000) this.#begin(nowMs)
    const { perSource, total } = this.#bounds
    const before = this.#bySource.get(source) ?? 0
    if (this.#written < total && before < perSource) {
      this.#written += 1
      this.#bySource.set(source, before + 1)
      return true
    }
    if (this.#leftOut.size === 0) this.#tellLater(this.#endsAtMs - nowMs)
    const name = this.#leftOut.size < total || this.#leftOut.has(source) ? source : others
    this.#leftOut.set(name, (this.#leftOut.get(name) ?? 0) + 1)
    return false
  }

  /** Tells at once what was left out. */
  [Symbol.dispose](): void {
    this.#closed.abort()
    this.#tell()
  }

  #begin(nowMs: number): void {
    this.#tell()
    this.#endsAtMs = nowMs + windowSeconds * 1000
    this.#written = 0
    this.#bySource.clear()
  }

  #tellLater(milliseconds: number): void {
    if (this.#closed.signal.aborted) return
    const rest = Temporal.Duration.from({ milliseconds })
    this.#clock.sleep(rest, this.#closed.signal).then(
      () => this.#tell(),
      () => {
        // Told already, when it was closed.
      },
    )
  }

  #tell(): void {
    if (this.#leftOut.size === 0) return
    const all = [...this.#leftOut].toSorted(([, a], [, b]) => b - a)
    this.#leftOut.clear()
    this.#onLeftOut({
      lines: all.reduce((sum, [, count]) => sum + count, 0),
      seconds: windowSeconds,
      sources: Object.fromEntries(all.slice(0, mostNamed)),
    })
  }
}
