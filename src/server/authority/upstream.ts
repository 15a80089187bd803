import type { Clock } from '#base/clock.ts'
import { messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type {
  UpstreamAuthority,
  UpstreamCa,
} from '../plugin/upstream-authority/upstream-authority.ts'

/** Of its life, at most 30 days, is left when an upstream CA is said to end soon. */
const warnFraction = 1 / 6
const warnAtMostSeconds = 30 * 24 * 60 * 60
const warnAgainSeconds = 24 * 60 * 60

/** The authority above the server: looked at all the time, so that a new one is noticed and an ending one told of. */
export class Upstream {
  readonly #authority: UpstreamAuthority
  readonly #clock: Clock
  readonly #log: Log
  readonly #caTtlSeconds: number
  #ca: UpstreamCa | undefined
  #failure = ''
  #warned = { problem: '', atSeconds: 0 }

  constructor(
    authority: UpstreamAuthority,
    deps: { readonly clock: Clock; readonly log: Log; readonly caTtlSeconds: number },
  ) {
    this.#authority = authority
    this.#clock = deps.clock
    this.#log = deps.log
    this.#caTtlSeconds = deps.caTtlSeconds
  }

  /** Unix time at which the CA that was last seen, or one above it, ends; undefined before the first. */
  get endSeconds(): number | undefined {
    if (this.#ca === undefined) return undefined
    return Math.min(...this.#ca.path.map(({ notAfterSeconds }) => notAfterSeconds))
  }

  /** Reads it as it is now. @throws AssayError as {@link UpstreamAuthority.current} does. */
  async look(): Promise<UpstreamCa> {
    try {
      const ca = await this.#authority.current()
      this.#ca = ca
      this.#failure = ''
      return ca
    } catch (error) {
      this.#failure = messageOf(error)
      throw error
    } finally {
      this.#warn()
    }
  }

  /** What somebody has to do about it, well before anything stops; undefined: nothing. */
  problem(): string | undefined {
    if (this.#failure !== '') return this.#failure
    const { refusal, where } = this.#authority
    if (refusal !== undefined) {
      return `the token of the upstream authority (${where}) refused the PIN, and no authority is certified: ${refusal}; put the PIN right, then 'assay hsm resume'`
    }
    const { endSeconds } = this
    const [ca] = this.#ca?.path ?? []
    if (ca === undefined || endSeconds === undefined) return undefined
    const lifetimeSeconds = endSeconds - ca.notBeforeSeconds
    const soonSeconds = Math.max(
      Math.min(lifetimeSeconds * warnFraction, warnAtMostSeconds),
      // From then on the server's own authorities live less long than they should.
      Math.min(2 * this.#caTtlSeconds, lifetimeSeconds / 2),
    )
    if (endSeconds - this.#nowSeconds() > soonSeconds) return undefined
    const end = Temporal.Instant.fromEpochMilliseconds(endSeconds * 1000).toString()
    return `the upstream authority (${this.#authority.where}) ends at ${end}, and nothing is issued after that: renew it`
  }

  #warn(): void {
    const problem = this.problem() ?? ''
    const nowSeconds = this.#nowSeconds()
    const isSaid =
      problem === this.#warned.problem && nowSeconds < this.#warned.atSeconds + warnAgainSeconds
    if (problem !== '' && !isSaid) this.#log.warn({ reason: 'upstream' }, problem)
    if (problem === '' && this.#warned.problem !== '') {
      this.#log.info({ where: this.#authority.where }, 'the upstream authority is well again')
    }
    if (!isSaid) this.#warned = { problem, atSeconds: nowSeconds }
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}
