import type { Clock } from '#base/clock.ts'
import { messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { rotationFraction } from '#spiffe/rotation.ts'
import type { AgentEntry } from './agent-entry.ts'
import type { AuthorityTrust } from './x509-svid.ts'

/** A JWT-SVID as the server issued it. */
export interface JwtSvid {
  /** JWS compact serialization. A bearer secret until it expires. */
  readonly token: string
  /** Of the key that signed it. */
  readonly keyId: string
  /** Unix time. */
  readonly issuedAtSeconds: number
  /** Unix time. */
  readonly expiresAtSeconds: number
}

export interface JwtSvidCacheOptions {
  /** Has the server sign one. */
  readonly issue: (
    request: { readonly entryId: string; readonly audience: readonly string[] },
    signal: AbortSignal,
  ) => Promise<JwtSvid>
  /** What the own bundle says of a key now. */
  readonly trustOf: (keyId: string) => AuthorityTrust
  /** How many tokens are held at most. */
  readonly maxSize: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

interface Held {
  readonly svid: JwtSvid
  readonly entryId: string
  readonly revisionNumber: number
  readonly refreshAtMs: number
}

/**
 * How long a caller waits for a fresh token while the held one is still valid: a server that hangs must not
 * be felt by workloads.
 */
const freshnessWait = Temporal.Duration.from({ milliseconds: 25 })
/** How long a request to the server may take. */
const issueLimit = Temporal.Duration.from({ seconds: 30 })

/**
 * JWT-SVIDs by entry and audience, the least recently used given up first. A token is replaced around half of its
 * life; the one that is held goes on being given out until it expires when no other can be had.
 */
export class JwtSvidCache {
  readonly #options: JwtSvidCacheOptions
  /** Least recently used first. */
  readonly #held = new Map<string, Held>()
  readonly #underway = new Map<string, Promise<JwtSvid>>()

  constructor(options: JwtSvidCacheOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#held.size
  }

  /**
   * A token of `entry` for exactly the given audience.
   *
   * @throws what the server answered, when there is no valid token to fall back on.
   */
  async get(entry: AgentEntry, audience: readonly string[], signal: AbortSignal): Promise<JwtSvid> {
    if (entry.jwtSvidIncludeJti) return this.#issue(entry, audience, signal)
    const key = JSON.stringify([entry.id, ...[...new Set(audience)].sort()])
    const held = this.#take(key, entry)
    const nowMs = this.#nowMs()
    if (held !== undefined && nowMs < held.refreshAtMs) return held.svid
    const issued = this.#issueOnce(key, entry, audience)
    if (held === undefined) return abortable(issued, signal)
    return this.#freshOr(held.svid, issued, signal)
  }

  /** Forgets the tokens of entries that `isGone` names, and those whose key is not trusted any more. */
  prune(isGone: (entryId: string) => boolean): void {
    for (const [key, { svid, entryId }] of this.#held) {
      if (!this.#isTrusted(svid) || isGone(entryId)) this.#held.delete(key)
    }
  }

  clear(): void {
    this.#held.clear()
    this.#underway.clear()
  }

  /** The held token if it may still be given out, and marks it as used. */
  #take(key: string, entry: AgentEntry): Held | undefined {
    const held = this.#held.get(key)
    if (held === undefined) return undefined
    this.#held.delete(key)
    if (held.revisionNumber !== entry.revisionNumber) return undefined
    if (held.svid.expiresAtSeconds * 1000 <= this.#nowMs()) return undefined
    this.#held.set(key, held)
    return held
  }

  /** One request to the server for all who ask for the same token meanwhile. */
  #issueOnce(key: string, entry: AgentEntry, audience: readonly string[]): Promise<JwtSvid> {
    const underway = this.#underway.get(key)
    if (underway !== undefined) return underway
    const started = this.#issueAndHold(key, entry, audience)
    this.#underway.set(key, started)
    return started
  }

  async #issueAndHold(
    key: string,
    entry: AgentEntry,
    audience: readonly string[],
  ): Promise<JwtSvid> {
    try {
      const svid = await this.#issue(entry, audience, new AbortController().signal)
      this.#hold(key, entry, svid)
      return svid
    } finally {
      this.#underway.delete(key)
    }
  }

  async #issue(
    entry: AgentEntry,
    audience: readonly string[],
    signal: AbortSignal,
  ): Promise<JwtSvid> {
    const limit = new AbortController()
    const linked = AbortSignal.any([signal, limit.signal])
    const done = new AbortController()
    const timeout = this.#options.clock.sleep(issueLimit, AbortSignal.any([linked, done.signal]))
    timeout.then(
      () => limit.abort(new Error('the server did not answer within 30 seconds')),
      () => {},
    )
    try {
      return await this.#options.issue({ entryId: entry.id, audience }, linked)
    } finally {
      done.abort()
    }
  }

  #hold(key: string, entry: AgentEntry, svid: JwtSvid): void {
    const nowMs = this.#nowMs()
    const lifetimeMs = svid.expiresAtSeconds * 1000 - nowMs
    if (lifetimeMs <= 0 || !this.#isTrusted(svid)) return
    const share = 1 - rotationFraction(this.#options.random)
    this.#held.delete(key)
    this.#held.set(key, {
      svid,
      entryId: entry.id,
      revisionNumber: entry.revisionNumber,
      refreshAtMs: nowMs + lifetimeMs * share,
    })
    for (const oldest of this.#held.keys()) {
      if (this.#held.size <= this.#options.maxSize) break
      this.#held.delete(oldest)
    }
  }

  #isTrusted({ keyId }: JwtSvid): boolean {
    return this.#options.trustOf(keyId) === 'trusted'
  }

  /** The fresh token if it comes soon, else the one that is held. */
  async #freshOr(held: JwtSvid, issued: Promise<JwtSvid>, signal: AbortSignal): Promise<JwtSvid> {
    const done = new AbortController()
    const fallback = async (): Promise<JwtSvid> => {
      await this.#options.clock.sleep(freshnessWait, AbortSignal.any([signal, done.signal]))
      return held
    }
    const fresh = issued.catch((error: unknown) => {
      this.#options.log.warn(
        { error: messageOf(error) },
        'cannot replace a JWT-SVID; the held one is given out while it is valid',
      )
      return held
    })
    try {
      return await Promise.race([fresh, fallback()])
    } finally {
      done.abort()
    }
  }

  #nowMs(): number {
    return this.#options.clock.now().epochMilliseconds
  }
}

/** `promise`, given up when the caller goes away; the work goes on for others. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const onAbort = (): void => reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
