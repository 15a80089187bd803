import type { Clock } from '#base/clock.ts'

/** SVIDs by type, as the history tells them apart. */
export type IssuedType = 'x509' | 'jwt' | 'agent'
export type IssuedCounts = Readonly<Record<IssuedType, number>>

/** SVIDs signed within one minute. */
export interface IssuedMinute {
  /** Unix time of its beginning. */
  readonly atSeconds: number
  readonly counts: IssuedCounts
  readonly refused: number
}

/** SVIDs that expire within one period. */
export interface ExpiringPeriod {
  readonly fromSeconds: number
  readonly untilSeconds: number
  readonly counts: IssuedCounts
}

/** How many minutes are remembered, the one that is not over included. */
const minutesKept = 60
const minuteSeconds = 60
const periodSeconds = 300
const aheadSeconds = 24 * 3600

type Counts = Record<IssuedType, number>
const none = (): Counts => ({ x509: 0, jwt: 0, agent: 0 })

/**
 * How many SVIDs were signed in each of the last 60 minutes and when they expire. It is kept in memory, and begins
 * anew with the server. What it holds is bounded: by the hour, and by the lifetime of SVIDs in periods of five minutes.
 */
export class IssueHistory {
  readonly #clock: Clock
  readonly #minutes = new Map<number, { counts: Counts; refused: number }>()
  /** By the beginning of the period. */
  readonly #periods = new Map<number, Counts>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  issued(type: IssuedType, expiresAtSeconds: number): void {
    this.#minute().counts[type] += 1
    const period = floor(expiresAtSeconds, periodSeconds)
    const counts = this.#periods.get(period) ?? none()
    counts[type] += 1
    this.#periods.set(period, counts)
  }

  refused(): void {
    this.#minute().refused += 1
  }

  /** The last 60 minutes, oldest first, the one that is not over last. */
  minutes(): readonly IssuedMinute[] {
    const current = floor(this.#nowSeconds(), minuteSeconds)
    return Array.from({ length: minutesKept }, (_, index) => {
      const atSeconds = current - (minutesKept - 1 - index) * minuteSeconds
      const { counts = none(), refused = 0 } = this.#minutes.get(atSeconds) ?? {}
      return { atSeconds, counts, refused }
    })
  }

  /** What expires in the next 24 hours, by period, earliest first; and all that expires later. */
  expiring(): { readonly periods: readonly ExpiringPeriod[]; readonly later: IssuedCounts } {
    const nowSeconds = this.#nowSeconds()
    const later = none()
    const periods: ExpiringPeriod[] = []
    for (const [fromSeconds, counts] of this.#periods) {
      const untilSeconds = fromSeconds + periodSeconds
      if (untilSeconds <= nowSeconds) this.#periods.delete(fromSeconds)
      else if (fromSeconds < nowSeconds + aheadSeconds) {
        periods.push({ fromSeconds, untilSeconds, counts: { ...counts } })
      } else for (const type of Object.keys(later) as IssuedType[]) later[type] += counts[type]
    }
    periods.sort((a, b) => a.fromSeconds - b.fromSeconds)
    return { periods, later }
  }

  #minute(): { counts: Counts; refused: number } {
    const at = floor(this.#nowSeconds(), minuteSeconds)
    let minute = this.#minutes.get(at)
    if (minute === undefined) {
      minute = { counts: none(), refused: 0 }
      this.#minutes.set(at, minute)
      // The map is in the order of insertion, and of time unless the clock went back.
      for (const old of this.#minutes.keys()) {
        if (old <= at - minutesKept * minuteSeconds || this.#minutes.size > minutesKept + 1) {
          this.#minutes.delete(old)
        }
      }
      this.#forgetExpired()
    }
    return minute
  }

  #forgetExpired(): void {
    const nowSeconds = this.#nowSeconds()
    for (const period of this.#periods.keys()) {
      if (period + periodSeconds <= nowSeconds) this.#periods.delete(period)
    }
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}

const floor = (seconds: number, step: number): number => seconds - (seconds % step)
