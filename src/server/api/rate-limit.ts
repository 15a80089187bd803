import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'

/** A limit on what one source may do. */
export interface RateLimit {
  /** How much each source gets per second; also the most it can save up. */
  readonly perSecond: number
  readonly clock: Clock
}

/** A call that would have to wait longer than this is refused at once, so that waiting calls cannot pile up. */
export const maxWaitSeconds = 30

/** Sources that are remembered apart. Beyond it, new ones share one bucket until old ones have gone idle. */
export const maxSources = 16_384

interface Bucket {
  /** Below zero when calls are waiting for tokens to come. */
  tokens: number
  refilledAtMs: number
}

/**
 * A token bucket for each source. Callers wait for their turn instead of failing, as with SPIRE's server, so
 * that a fleet that starts at once is spread out and not turned away.
 */
export class RateLimiter {
  readonly #limit: RateLimit
  readonly #buckets = new Map<string, Bucket>()
  #sweptAtMs = 0

  constructor(limit: RateLimit) {
    this.#limit = limit
  }

  /** How many sources are remembered. */
  get sources(): number {
    return this.#buckets.size
  }

  /**
   * Takes `count` tokens of `source`, waiting until they are there.
   *
   * @throws AssayError `resource-exhausted` when `count` is more than a second's worth, or the wait too long.
   * @throws the signal's reason when it aborts; the tokens are given back.
   */
  async take(source: string, options: { count: number; signal: AbortSignal }): Promise<void> {
    const { clock, perSecond } = this.#limit
    const { count, signal } = options
    if (count > perSecond) {
      throw new AssayError(
        'resource-exhausted',
        `cannot do ${count} of these at once: at most ${perSecond} are allowed`,
        { reason: 'rate-limit-burst' },
      )
    }
    const bucket = this.#bucket(source)
    const waitSeconds = (count - bucket.tokens) / perSecond
    if (waitSeconds > maxWaitSeconds) {
      throw new AssayError(
        'resource-exhausted',
        `cannot take more calls from ${source}: ${perSecond} per second are allowed`,
        { reason: 'rate-limit' },
      )
    }
    bucket.tokens -= count
    if (waitSeconds <= 0) return
    try {
      await clock.sleep(
        Temporal.Duration.from({ milliseconds: Math.ceil(waitSeconds * 1000) }),
        signal,
      )
    } catch (error) {
      bucket.tokens += count
      throw error
    }
  }

  #bucket(source: string): Bucket {
    const nowMs = this.#limit.clock.now().epochMilliseconds
    let bucket = this.#buckets.get(source)
    if (bucket === undefined && this.#buckets.size >= maxSources) {
      this.#forgetIdle(nowMs)
      if (this.#buckets.size >= maxSources) bucket = this.#buckets.get(overflow)
    }
    if (bucket === undefined) {
      bucket = { tokens: this.#limit.perSecond, refilledAtMs: nowMs }
      this.#buckets.set(this.#buckets.size >= maxSources ? overflow : source, bucket)
    }
    this.#refill(bucket, nowMs)
    return bucket
  }

  #refill(bucket: Bucket, nowMs: number): void {
    const { perSecond } = this.#limit
    // A clock that was set back must neither take tokens away nor stop them from coming.
    const elapsedMs = Math.max(0, nowMs - bucket.refilledAtMs)
    bucket.tokens = Math.min(perSecond, bucket.tokens + (elapsedMs / 1000) * perSecond)
    bucket.refilledAtMs = nowMs
  }

  #forgetIdle(nowMs: number): void {
    if (Math.abs(nowMs - this.#sweptAtMs) < 1000) return
    this.#sweptAtMs = nowMs
    for (const [source, bucket] of this.#buckets) {
      this.#refill(bucket, nowMs)
      if (bucket.tokens === this.#limit.perSecond) this.#buckets.delete(source)
    }
  }
}

/** The name of the bucket shared when there are too many sources; no address looks like it. */
const overflow = '*'
