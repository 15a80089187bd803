import type { Clock } from '#base/clock.ts'

const stepMs = 250
const step = Temporal.Duration.from({ milliseconds: stepMs })

interface Entry {
  readonly dueAtStep: number
  readonly expire: () => void
}

/**
 * Says when something has been waited for too long: one timer for any number of waits, and none while
 * there is nothing to wait for. Waits are counted in steps of 250 ms in which this event loop was alive,
 * so that a process which stood still itself (suspended, stopped, stalled) blames nobody else for it.
 */
export class Deadlines {
  readonly #clock: Clock
  readonly #signal: AbortSignal
  readonly #entries = new Set<Entry>()
  #steps = 0
  #stepping = false

  /** Stops for good when `signal` aborts. */
  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock
    this.#signal = signal
  }

  /**
   * Calls `expire` after `milliseconds` or up to two steps more, never earlier, unless what this returns is
   * called before.
   */
  start(milliseconds: number, expire: () => void): () => void {
    const partial = this.#stepping ? 1 : 0
    const entry = { dueAtStep: this.#steps + Math.ceil(milliseconds / stepMs) + partial, expire }
    this.#entries.add(entry)
    if (!this.#stepping) {
      this.#stepping = true
      void this.#run()
    }
    return () => void this.#entries.delete(entry)
  }

  async #run(): Promise<void> {
    while (this.#entries.size > 0 && !this.#signal.aborted) {
      try {
        await this.#clock.sleep(step, this.#signal)
      } catch {
        break // aborted: nobody is left to tell
      }
      this.#steps++
      for (const entry of this.#entries) {
        if (entry.dueAtStep > this.#steps) continue
        this.#entries.delete(entry)
        entry.expire()
      }
    }
    this.#stepping = false
  }
}
