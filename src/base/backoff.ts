import { type Random, randomFraction } from './random.ts'

/** Ever longer waits between attempts: each half as long again as the last, up to a limit, and spread at random. */
export class Backoff {
  readonly #firstMs: number
  readonly #longestMs: number
  readonly #random: Random
  #baseMs: number

  constructor(options: {
    readonly first: Temporal.Duration
    readonly longest: Temporal.Duration
    readonly random: Random
  }) {
    this.#firstMs = options.first.total('milliseconds')
    this.#longestMs = options.longest.total('milliseconds')
    this.#random = options.random
    this.#baseMs = this.#firstMs
  }

  /**
   * How long to wait before the next attempt. The spread is half to one and a half of the nominal wait, so that
   * a thousand clients that lost the same server do not come back as one.
   */
  next(): Temporal.Duration {
    const spread = 0.5 + randomFraction(this.#random)
    const waitMs = Math.round(this.#baseMs * spread)
    this.#baseMs = Math.min(this.#baseMs * 1.5, this.#longestMs)
    return Temporal.Duration.from({ milliseconds: waitMs })
  }

  /** After a success the next wait is short again. */
  reset(): void {
    this.#baseMs = this.#firstMs
  }
}
