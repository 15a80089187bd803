import type { Log } from '#base/log.ts'
import { KnownKey } from './known-key.ts'
import type { KeyDescription, RefusedKey } from './protocol.ts'

/** What a token had when it was opened. */
export interface FoundKeys {
  readonly keys: readonly KeyDescription[]
  /** Keys the signer leaves alone, and why. */
  readonly refused: readonly RefusedKey[]
  /** Another token of the same name says nothing about our keys. */
  readonly isOurToken: boolean
}

/** The keys of ours, by label: those the token had when it was last opened, and those made since. */
export class KnownKeys {
  readonly byLabel = new Map<string, KnownKey>()
  readonly #log: Log

  constructor(log: Log) {
    this.#log = log
  }

  get all(): readonly KnownKey[] {
    return [...this.byLabel.values()]
  }

  /** What is the matter with keys although the token is open; empty when nothing is. */
  get faults(): string {
    const faulty = this.all.filter((key) => key.fault !== undefined)
    return faulty.map((key) => `${key.label}: ${key.fault}`).join('; ')
  }

  /** The token is away: none can sign. */
  voidAll(): void {
    for (const key of this.byLabel.values()) {
      key.ref = undefined
      key.parkedRef = undefined
    }
  }

  /**
   * The token has been opened. Forgets the keys that it has lost and gets to know those that are new, none of which
   * can sign yet; returns what it has under each label.
   */
  meet({ keys, refused, isOurToken }: FoundKeys): ReadonlyMap<string, KeyDescription> {
    const described = this.#select(keys)
    for (const { label, why } of refused) this.#warnOfRefused(label, why)
    if (isOurToken) this.#forgetLost(described)
    for (const [label, description] of described) {
      if (!this.byLabel.has(label)) this.byLabel.set(label, new KnownKey(description))
    }
    return described
  }

  /** One key for each label. Where the token has several, the public key that is known decides, and else nothing. */
  #select(descriptions: readonly KeyDescription[]): ReadonlyMap<string, KeyDescription> {
    const selected = new Map<string, KeyDescription>()
    for (const [label, candidates] of Map.groupBy(descriptions, (key) => key.label)) {
      const known = this.byLabel.get(label)
      const [key, ...others] =
        known === undefined || candidates.length === 1
          ? candidates
          : candidates.filter((candidate) => known.isSameAs(candidate))
      if (key !== undefined && others.length === 0) selected.set(label, key)
      else this.#warnOfRefused(label, `${candidates.length} keys have this label`)
    }
    return selected
  }

  /** What our token does not have any more is gone for good, and is to be replaced. */
  #forgetLost(described: ReadonlyMap<string, KeyDescription>): void {
    for (const key of this.all) {
      const found = described.get(key.label)
      if (found !== undefined && key.isSameAs(found)) continue
      this.byLabel.delete(key.label)
      const why = found === undefined ? 'it is not on the token' : 'the token has another one'
      this.#log.error({ key: key.label, why }, 'hsm key is lost')
    }
  }

  #warnOfRefused(label: string, why: string): void {
    this.#log.error({ key: label, reason: 'hsm-key-refused' }, `hsm key is not used: ${why}`)
  }
}
