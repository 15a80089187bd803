import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { rotateAtSeconds, rotationFraction } from '#spiffe/rotation.ts'
import type { AgentIdentity } from '../server-client/agent-identity.ts'
import { Alarm } from './alarm.ts'
import { type SyncEnd, syncEndOf } from './sync.ts'

export interface AgentSvidOptions {
  /** Gets the next identity: by proving the node again, or by extending the present one. */
  readonly renew: (current: AgentIdentity, signal: AbortSignal) => Promise<AgentIdentity>
  /** Called with each identity, before anything else happens with it. */
  readonly onRenewed: (identity: AgentIdentity) => Promise<void>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** Keeps the agent's own identity fresh: each is replaced around half of its life. */
export class AgentSvid {
  readonly #options: AgentSvidOptions
  readonly #alarm: Alarm
  /** No later than this the present one is replaced. Unix time. */
  #replaceAtMs = Number.POSITIVE_INFINITY
  #dueAtMs: number | undefined
  #renewing: Promise<unknown> = Promise.resolve()
  #generation = 0

  constructor(options: AgentSvidOptions) {
    this.#options = options
    this.#alarm = new Alarm(options.clock)
  }

  /** When the next one is asked for, Unix time; undefined: there is none to replace. */
  get dueAtMs(): number | undefined {
    return this.#dueAtMs
  }

  /** How many times it was replaced. */
  get generation(): number {
    return this.#generation
  }

  /** Waits until a renewal that is under way has come to something. */
  async settled(): Promise<void> {
    await this.#renewing
  }

  /** Its authority is tainted or revoked: it is replaced at `atMs` (Unix time), unless it is due earlier. */
  renewBy(atMs: number): void {
    this.#replaceAtMs = Math.min(this.#replaceAtMs, atMs)
    this.#alarm.ring()
  }

  /**
   * @returns why the server gives no other one: the node has to prove itself first, or is banned.
   * @throws the signal's reason when it aborts.
   */
  async keep(first: AgentIdentity, signal: AbortSignal): Promise<SyncEnd> {
    const { clock, random, log } = this.#options
    const backoff = new Backoff({
      first: Temporal.Duration.from({ seconds: 1 }),
      longest: Temporal.Duration.from({ minutes: 1 }),
      random,
    })
    let current = first
    // What was said of an earlier one is not about this one.
    this.#replaceAtMs = Number.POSITIVE_INFINITY
    for (;;) {
      await this.#untilDue(current, signal)
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#renewing = promise
      try {
        current = await this.#options.renew(current, signal)
        this.#replaceAtMs = Number.POSITIVE_INFINITY
        await this.#options.onRenewed(current)
        this.#generation += 1
        backoff.reset()
        log.info(
          { spiffeId: current.spiffeId, expiresAt: instantText(current.expiresAtSeconds) },
          'the agent has a new SVID',
        )
      } catch (error) {
        signal.throwIfAborted()
        const end = syncEndOf(error) ?? this.#expiryEnd(current)
        if (end !== undefined) return end
        log.warn(
          { error: messageOf(error), expiresAt: instantText(current.expiresAtSeconds) },
          'cannot renew the agent’s SVID; it is tried again',
        )
        resolve()
        await clock.sleep(backoff.next(), signal)
      } finally {
        resolve()
      }
    }
  }

  async #untilDue(current: AgentIdentity, signal: AbortSignal): Promise<void> {
    const fraction = rotationFraction(this.#options.random)
    const halfLifeMs = rotateAtSeconds(current, fraction) * 1000
    for (;;) {
      const dueMs = Math.min(halfLifeMs, this.#replaceAtMs)
      this.#dueAtMs = dueMs
      if (this.#options.clock.now().epochMilliseconds >= dueMs) return
      await this.#alarm.wait(dueMs, signal)
    }
  }

  /** An identity that has expired opens no door any more: only a new proof does. */
  #expiryEnd(current: AgentIdentity): SyncEnd | undefined {
    const nowSeconds = this.#options.clock.now().epochMilliseconds / 1000
    return nowSeconds >= current.expiresAtSeconds ? 'must-reattest' : undefined
  }
}

function instantText(seconds: number): string {
  return Temporal.Instant.fromEpochMilliseconds(seconds * 1000).toString()
}
