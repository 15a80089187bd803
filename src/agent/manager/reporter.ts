import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { Alarm } from './alarm.ts'
import { type Holdings, isSameReport } from './holdings.ts'

/**
 * `none`: the server has no feed, or there is none at present. `pending`: it has not taken the present report yet.
 * `taken`: it has. `unsupported`: it does not count reports.
 */
export type ReportState = 'none' | 'pending' | 'taken' | 'unsupported'

export interface ReporterOptions {
  readonly holdings: () => Holdings
  /** Has the server take a report. */
  readonly send: (holdings: Holdings, signal: AbortSignal) => Promise<void>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** Changes that come this close together are one report: a batch of SVIDs reaches its streams one by one. */
const gather = Temporal.Duration.from({ milliseconds: 100 })

/** Tells the server what the agent and its workloads have, whenever that has changed. */
export class Reporter {
  readonly #options: ReporterOptions
  readonly #alarm: Alarm
  #state: ReportState = 'none'
  #isUnsupported = false

  constructor(options: ReporterOptions) {
    this.#options = options
    this.#alarm = new Alarm(options.clock)
  }

  get state(): ReportState {
    return this.#state
  }

  /** What there is to report now. */
  holdings(): Holdings {
    return this.#options.holdings()
  }

  /** Something may have changed. */
  changed(): void {
    this.#alarm.ring()
  }

  /** Reports over one feed, the whole at its beginning, until `signal` aborts or the server turns out not to count. */
  async run(signal: AbortSignal): Promise<void> {
    this.#state = 'pending'
    try {
      await this.#report(signal)
      this.#state = 'unsupported'
    } catch (error) {
      this.#state = 'none'
      if (!signal.aborted) throw error
    }
  }

  /** Returns when the server says that it does not count. */
  async #report(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options
    const backoff = new Backoff({
      first: Temporal.Duration.from({ milliseconds: 500 }),
      longest: Temporal.Duration.from({ seconds: 30 }),
      random,
    })
    let taken: Holdings | undefined
    for (;;) {
      await clock.sleep(gather, signal)
      const holdings = this.holdings()
      if (taken === undefined || !isSameReport(taken, holdings)) {
        this.#state = 'pending'
        const outcome = await this.#send(holdings, signal)
        if (outcome === 'unsupported') return
        if (outcome === 'failed') {
          await clock.sleep(backoff.next(), signal)
          continue
        }
        taken = holdings
        backoff.reset()
        this.#state = 'taken'
      }
      await this.#alarm.wait(holdings.againAtMs, signal)
    }
  }

  async #send(
    holdings: Holdings,
    signal: AbortSignal,
  ): Promise<'taken' | 'failed' | 'unsupported'> {
    const { send, log } = this.#options
    try {
      await send(holdings, signal)
      return 'taken'
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof AssayError && error.code === 'unimplemented') {
        if (!this.#isUnsupported) {
          log.debug(
            {},
            'this server does not count what agents report; rotations there do not wait for this node',
          )
        }
        this.#isUnsupported = true
        return 'unsupported'
      }
      log.debug(
        { error: messageOf(error) },
        'the server has not taken the report of this agent; it is told again',
      )
      return 'failed'
    }
  }
}
