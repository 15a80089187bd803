import type { Clock } from '#base/clock.ts'

/** Waits between the rounds of a loop, and can be told not to. */
export class Ticker {
  readonly #clock: Clock
  readonly #period: Temporal.Duration
  #woken = new AbortController()

  constructor(clock: Clock, period: Temporal.Duration) {
    this.#clock = clock
    this.#period = period
  }

  /** Ends the wait that is under way, or else the next one before it begins. */
  wake(): void {
    this.#woken.abort()
  }

  /** Resolves after the period, when woken, or when `signal` aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    const woken = this.#woken
    try {
      await this.#clock.sleep(this.#period, AbortSignal.any([signal, woken.signal]))
    } catch (error) {
      if (!signal.aborted && !woken.signal.aborted) throw error
    }
    if (woken.signal.aborted) this.#woken = new AbortController()
  }
}
