import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'

/** How far the clock may step back before issuing stops. */
const toleranceSeconds = 60

/**
 * The time that goes into what is issued. It remembers the newest time anything was issued at, and stops when
 * the clock falls clearly behind it: what is signed by a wrong clock outlives the mistake.
 */
export class IssueTime {
  readonly #clock: Clock
  #newestSeconds: number

  /** `newestSeconds` is the Unix time of the newest issue that is known from before; zero: none is. */
  constructor(clock: Clock, newestSeconds: number) {
    this.#clock = clock
    this.#newestSeconds = newestSeconds
  }

  /** Unix time of the newest issue so far; zero: none. */
  get newestSeconds(): number {
    return this.#newestSeconds
  }

  /** Why nothing may be issued now; undefined when it may. */
  problem(): string | undefined {
    const now = this.#read()
    if (now >= this.#newestSeconds - toleranceSeconds) return undefined
    return `the clock says ${dateText(now)}, but something was issued at ${dateText(this.#newestSeconds)}: set the clock or, if it is right now, run: assay hsm accept-clock`
  }

  /** Unix time now, in whole seconds. @throws AssayError `unavailable` when the clock went back. */
  now(): number {
    const now = this.#read()
    if (now < this.#newestSeconds) {
      const problem = this.problem()
      if (problem !== undefined) {
        throw new AssayError('unavailable', `cannot issue: ${problem}`, {
          reason: 'clock-went-back',
        })
      }
    } else {
      this.#newestSeconds = now
    }
    return now
  }

  /** Believes the clock again, whatever was issued before. For an operator who knows that it is right now. */
  accept(): void {
    this.#newestSeconds = this.#read()
  }

  #read(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}

const dateText = (epochSeconds: number): string =>
  Temporal.Instant.fromEpochMilliseconds(epochSeconds * 1000).toString({ smallestUnit: 'second' })
