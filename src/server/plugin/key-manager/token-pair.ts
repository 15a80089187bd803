import { AssayError } from '#base/errors.ts'
import type {
  HsmActivity,
  KeyManager,
  KeyManagerStatus,
  KeyPlace,
  KeyType,
  Sealer,
  SigningKey,
} from './key-manager.ts'
import { firstOpened, joinSealed, splitSealed } from './sealed-parts.ts'

/** What a pair of tokens needs beside them. */
export interface TokenPairOptions {
  /** How long a key may be unable to sign before another one is to sign in its stead. */
  readonly promoteAfter: Temporal.Duration
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
}

/**
 * Two tokens as one key manager. A key is in one of them and stays there; one that is made apart from another is made
 * in the other token, unless that is away. Names are looked up in both.
 */
export class TokenPair implements KeyManager {
  readonly sealer?: Sealer
  readonly #tokens: readonly [KeyManager, KeyManager]
  readonly #options: TokenPairOptions
  /** When a key was first seen unable to sign, by name. */
  readonly #awaySinceMs = new Map<string, number>()

  /** Takes both over. The first is where a key is made that is to be apart from none. */
  constructor(first: KeyManager, second: KeyManager, options: TokenPairOptions) {
    this.#tokens = [first, second]
    this.#options = options
    if (first.sealer === undefined || second.sealer === undefined) return
    this.sealer = newPairSealer([
      { sealer: first.sealer, isUp: () => isUp(first) },
      { sealer: second.sealer, isUp: () => isUp(second) },
    ])
  }

  async generateKey(id: string, type: KeyType, apartFrom?: string): Promise<SigningKey> {
    if (this.key(id) !== undefined) {
      throw new AssayError('already-exists', `cannot generate key ${id}: there is one of that name`)
    }
    const [first, second] = this.#tokens
    const holder = apartFrom === undefined ? undefined : this.#holder(apartFrom)
    const wanted = holder === first ? second : first
    const other = wanted === first ? second : first
    return await (isUp(wanted) || !isUp(other) ? wanted : other).generateKey(id, type)
  }

  key(id: string): SigningKey | undefined {
    return this.#tokens[0].key(id) ?? this.#tokens[1].key(id)
  }

  keys(): readonly SigningKey[] {
    const ofFirst = this.#tokens[0].keys()
    const names = new Set(ofFirst.map(({ id }) => id))
    return [...ofFirst, ...this.#tokens[1].keys().filter(({ id }) => !names.has(id))]
  }

  async destroyKey(id: string): Promise<void> {
    const holders = this.#tokens.filter((token) => token.place?.(id) !== undefined)
    for (const token of holders.length > 0 ? holders : this.#tokens) await token.destroyKey(id)
    this.#awaySinceMs.delete(id)
  }

  place(id: string): KeyPlace | undefined {
    const holder = this.#holder(id)
    if (holder === undefined) return undefined
    const place = holder.place?.(id)
    if (place === undefined) return undefined
    const [first, second] = this.#tokens
    return {
      where: place.where,
      isUp: place.isUp,
      isGivenUp: this.#isGivenUp(id, place.isUp),
      hasOther: isUp(holder === first ? second : first),
    }
  }

  status(): KeyManagerStatus {
    const statuses = this.#tokens.map((token) => token.status())
    const where = statuses.map((status) => status.where).join(' and ')
    const troubled = statuses.filter(({ state }) => state !== 'ok')
    const detail = troubled
      .map((status) => `${status.where} is ${status.state}: ${status.detail}`)
      .join('; ')
    if (troubled.length === 0) return { state: 'ok', detail, where }
    if (this.#tokens.some(isUp)) return { state: 'degraded', detail, where }
    const isRefused = troubled.some(({ state }) => state === 'refused')
    return { state: isRefused ? 'refused' : 'down', detail, where }
  }

  activity(): readonly HsmActivity[] {
    return this.#tokens.flatMap((token) => token.activity?.() ?? [])
  }

  onStatus(listener: (status: KeyManagerStatus) => void): Disposable {
    const listening = new DisposableStack()
    for (const token of this.#tokens) {
      listening.use(token.onStatus(() => listener(this.status())))
    }
    return listening
  }

  /** Each token that refused its PIN tries it again. The first failure is told once all have. */
  async resume(): Promise<void> {
    const results = await Promise.allSettled(this.#tokens.map((token) => token.resume?.()))
    const failed = results.find((result) => result.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#tokens.map((token) => token[Symbol.asyncDispose]()))
  }

  /** The token that has the key; where none has, one that was never open and so may have it. */
  #holder(id: string): KeyManager | undefined {
    return (
      this.#tokens.find((token) => token.key(id) !== undefined) ??
      this.#tokens.find((token) => token.place?.(id) !== undefined)
    )
  }

  #isGivenUp(id: string, canSign: boolean): boolean {
    if (canSign) {
      this.#awaySinceMs.delete(id)
      return false
    }
    const nowMs = this.#options.monotonicMs()
    const sinceMs = this.#awaySinceMs.get(id) ?? nowMs
    this.#awaySinceMs.set(id, sinceMs)
    return nowMs - sinceMs >= this.#options.promoteAfter.total('milliseconds')
  }
}

/**
 * Seals with every token that is there, so that either opens it alone when the other is away; and opens what one of them
 * sealed by itself.
 */
function newPairSealer(pair: readonly { sealer: Sealer; isUp: () => boolean }[]): Sealer {
  const [first, second] = pair.map(({ sealer }) => sealer.where)
  return {
    where: `${first} and ${second}`,
    async seal(name, secret) {
      const there = pair.filter((token) => token.isUp())
      const asked = there.length > 0 ? there : pair
      const results = await Promise.allSettled(asked.map(({ sealer }) => sealer.seal(name, secret)))
      const parts = results.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
      if (parts.length > 0) return joinSealed(parts)
      throw results.find((one) => one.status === 'rejected')?.reason
    },
    unseal: (name, sealed) =>
      firstOpened(
        splitSealed(sealed).flatMap((part) =>
          pair.map(
            ({ sealer }) =>
              () =>
                sealer.unseal(name, part),
          ),
        ),
      ),
  }
}

function isUp(token: KeyManager): boolean {
  const { state } = token.status()
  return state === 'ok' || state === 'degraded'
}
