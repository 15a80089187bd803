import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import type { AgentStatus } from '../status.ts'
import { clockProblem } from './clock-offset.ts'
import type { Identities } from './identities.ts'
import { explainServerError } from './server-errors.ts'
import type { Update } from './update.ts'

export interface SyncOptions {
  /** What the server has to tell, for as long as one connection lasts. */
  readonly watch: (signal: AbortSignal) => AsyncIterable<Update>
  readonly identities: Identities
  /** Tells the server what the agent has, until the signal aborts. */
  readonly report: (signal: AbortSignal) => Promise<void>
  /** Called when the server was followed, or was to be, and cannot be. Not again until it was followed. */
  readonly onLost: () => void
  readonly status: AgentStatus
  readonly metrics: Metrics
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** What makes following the server pointless until the node has proved itself again, or for good. */
export type SyncEnd = 'must-reattest' | 'banned'

/** A complete update that would take away more than this share of all entries has to be said twice. */
const suspiciousLoss = 0.2

/** By the reason that the server gives with a refusal. */
const ends: ReadonlyMap<string | undefined, SyncEnd> = new Map([
  ['agent-banned', 'banned'],
  ['agent-expired', 'must-reattest'],
  ['agent-not-attested', 'must-reattest'],
  ['agent-not-active', 'must-reattest'],
  ['agent-must-reattest', 'must-reattest'],
])

/** What a refusal by the server means for the agent's identity; undefined: nothing. */
export function syncEndOf(error: unknown): SyncEnd | undefined {
  return error instanceof AssayError ? ends.get(error.reason) : undefined
}

/**
 * Keeps the identities as the server says they are. While the server is away the agent serves what it has, and tries
 * again at growing, spread waits.
 *
 * @returns why there is no use in going on.
 * @throws the signal's reason when it aborts.
 */
export async function followServer(options: SyncOptions, signal: AbortSignal): Promise<SyncEnd> {
  const { clock, random } = options
  const backoff = new Backoff({
    first: Temporal.Duration.from({ milliseconds: 500 }),
    longest: Temporal.Duration.from({ seconds: 15 }),
    random,
  })
  const follower = new Follower(options)
  for (;;) {
    try {
      const outcome = await follower.followOnce(signal, () => backoff.reset())
      // A stream that ends well was closed to spread the load: the next one may begin at once.
      if (outcome === 'ask-again') continue
    } catch (error) {
      signal.throwIfAborted()
      const end = syncEndOf(error)
      follower.lost(error, { isEnd: end !== undefined })
      if (end !== undefined) return end
    }
    await clock.sleep(backoff.next(), signal)
  }
}

class Follower {
  readonly #options: SyncOptions
  /** The last complete update was not believed; the next one is. */
  #isConfirming = false
  #isLost = false
  #skew: string | undefined

  constructor(options: SyncOptions) {
    this.#options = options
  }

  async followOnce(signal: AbortSignal, onSuccess: () => void): Promise<'ended' | 'ask-again'> {
    const ended = new AbortController()
    let reporting: Promise<void> | undefined
    try {
      for await (const update of this.#options.watch(signal)) {
        if (this.#isSuspicious(update)) return 'ask-again'
        this.#take(update)
        onSuccess()
        if (update.source === 'feed') {
          reporting ??= this.#options.report(AbortSignal.any([signal, ended.signal]))
          // What went wrong there is told when the feed ends.
          reporting.catch(() => {})
        }
      }
      return 'ended'
    } finally {
      ended.abort(new AssayError('unavailable', 'the feed has ended'))
      await reporting
    }
  }

  /** The server cannot be followed at present, or, as it says itself, at all: then whoever is told of it says so. */
  lost(error: unknown, { isEnd }: { readonly isEnd: boolean }): void {
    const { identities, status, metrics, onLost, log } = this.#options
    const why = explainServerError(error)
    if (!isEnd && !this.#isLost) onLost()
    metrics.serverReachable(false)
    status.enter(
      identities.isSynchronized ? 'degraded' : 'attesting',
      `no word of the server: ${why}`,
    )
    if (isEnd) log.debug({ error: why }, 'the server refuses to be followed')
    else if (this.#isLost) log.debug({ error: why }, 'the server still cannot be followed')
    else
      log.warn(
        { error: why },
        'the server cannot be followed; what is held is served until it expires',
      )
    this.#isLost = true
  }

  #isSuspicious(update: Update): boolean {
    const loss = this.#options.identities.lossOf(update)
    if (loss <= suspiciousLoss || this.#isConfirming) {
      this.#isConfirming = false
      return false
    }
    this.#options.log.warn(
      { lossPercent: Math.round(loss * 100) },
      'the server would take away many entries at once; it is asked again before they are given up',
    )
    this.#isConfirming = true
    return true
  }

  #take(update: Update): void {
    const { identities, status, metrics, clock, log } = this.#options
    identities.apply(update)
    const nowMs = clock.now().epochMilliseconds
    status.lastSyncAtSeconds = Math.trunc(nowMs / 1000)
    if (update.serverTimeMs !== undefined) this.#noteClock(update.serverTimeMs - nowMs)
    if (this.#isLost) {
      log.info({ revision: update.revision.toString() }, 'the server is followed again')
      identities.retryNow()
    }
    this.#isLost = false
    metrics.serverReachable(true)
    status.enter(this.#skew === undefined ? 'ready' : 'degraded', this.#skew)
  }

  #noteClock(offsetMs: number): void {
    const { status, log } = this.#options
    const problem = clockProblem(offsetMs)
    if (problem !== undefined && this.#skew === undefined) {
      log.warn(
        { offsetSeconds: Math.round(offsetMs / 1000) },
        `${problem}; certificates are judged by it, so set it right`,
      )
    }
    if (problem === undefined && this.#skew !== undefined) {
      log.info({}, 'the clock of this node agrees with the server’s again')
    }
    this.#skew = problem
    status.clockOffsetMs = offsetMs
  }
}
