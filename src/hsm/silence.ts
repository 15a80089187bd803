/** How often {@link Silence.look} is called. */
export const lookEveryMs = 150

/** Nobody waits for less than four looks, nor, however slow a token is, for more than thirteen before he asks why. */
const leastPatience = 4
const mostPatience = 13

/**
 * Tells a token that hangs from one that is slow, by its answers alone. Silence is counted in looks between which
 * something was owed and nothing came, so that a process which stood still itself blames nobody for it.
 */
export class Silence {
  readonly #patience: number
  #answered = 0
  #owed = false
  #quietLooks = 0

  /** A token whose answers take `usualMs` when nobody else asks is given twice that, up to two seconds. */
  constructor(usualMs: number) {
    const wanted = Math.ceil((2 * usualMs) / lookEveryMs)
    this.#patience = Math.min(Math.max(leastPatience, wanted), mostPatience)
  }

  /**
   * Looks at how many answers are owed now, and how many have come in all.
   *
   * @returns true while there has been silence for too long: 0.6 to 0.75 s with a token that is fast.
   */
  look(owed: number, answered: number): boolean {
    // What was asked for since the last look is owed for less than the time between two.
    const isQuiet = owed > 0 && this.#owed && answered === this.#answered
    this.#quietLooks = isQuiet ? this.#quietLooks + 1 : 0
    this.#owed = owed > 0
    this.#answered = answered
    return this.#quietLooks >= this.#patience
  }
}
