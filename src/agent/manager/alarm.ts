import type { Clock } from '#base/clock.ts'

/**
 * Longest wait in one go. Timers stand still while a machine is suspended and know nothing of a wall clock that
 * was set, so a loop that waits for a wall-clock time looks again at least this often.
 */
const longestWaitMs = 30_000

/** A wait for a wall-clock time that can be cut short. For one waiter. */
export class Alarm {
  readonly #clock: Clock
  #rung = false
  #stop: AbortController | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Ends the present wait, or the next one when there is none. */
  ring(): void {
    this.#rung = true
    this.#stop?.abort()
  }

  /**
   * Returns when the time has come, when rung, and every 30 seconds: the caller looks at what is due itself.
   *
   * @param atMs Unix time; undefined: no time of its own.
   * @throws the signal's reason when it aborts.
   */
  async wait(atMs: number | undefined, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#rung) {
      this.#rung = false
      return
    }
    const leftMs = atMs === undefined ? longestWaitMs : atMs - this.#clock.now().epochMilliseconds
    if (leftMs <= 0) return
    const stop = new AbortController()
    this.#stop = stop
    try {
      await this.#clock.sleep(
        Temporal.Duration.from({ milliseconds: Math.ceil(Math.min(leftMs, longestWaitMs)) }),
        AbortSignal.any([signal, stop.signal]),
      )
    } catch (error) {
      signal.throwIfAborted()
      if (!stop.signal.aborted) throw error
    } finally {
      this.#stop = undefined
      this.#rung = false
    }
  }
}
