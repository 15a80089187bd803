import type { Clock } from '#base/clock.ts'
import { type Random, randomFraction } from '#base/random.ts'

/**
 * When this agent replaces what a tainted authority signed: at a moment of its own within the time the server states, so
 * that the nodes of a large trust domain do not all come at once. An authority's moment is drawn once, when it is first
 * asked for, and nothing that happens later defers it.
 */
export class ReplacementSpread {
  readonly #clock: Clock
  readonly #random: Random
  readonly #momentsMs = new Map<string, number>()
  #seconds = 0

  constructor({ clock, random }: { readonly clock: Clock; readonly random: Random }) {
    this.#clock = clock
    this.#random = random
  }

  /** Over how many seconds agents spread the replacement; zero: at once. */
  set seconds(seconds: number) {
    this.#seconds = seconds
  }

  /** Unix time; in the past: at once. */
  momentMs(authorityId: string): number {
    const drawn = this.#momentsMs.get(authorityId)
    if (drawn !== undefined) return drawn
    const delayMs = this.#seconds * 1000 * randomFraction(this.#random)
    const momentMs = this.#clock.now().epochMilliseconds + delayMs
    this.#momentsMs.set(authorityId, momentMs)
    return momentMs
  }

  /** Forgets the moments of all authorities but those that `isTainted` names. */
  keepOnly(isTainted: (authorityId: string) => boolean): void {
    for (const id of this.#momentsMs.keys()) if (!isTainted(id)) this.#momentsMs.delete(id)
  }
}
