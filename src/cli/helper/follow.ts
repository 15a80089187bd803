import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { runTasks, type Task } from '#base/tasks.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { WorkloadApi, X509Context } from '#workload-client/workload-api.ts'
import type { HelperConfig } from './config.ts'
import { type Identities, isComplete, wantsJwtBundles, wantsX509 } from './identity-files.ts'

/** A token is asked for again this often at most, however short it lives. */
const minJwtRenewalSeconds = 5

export interface FollowOptions {
  readonly clock: Clock
  readonly random: Random
  /** Told once when the agent stops answering as it should, and why. */
  onTrouble(error: unknown): void
}

/**
 * What the agent says to this process, put together from its streams: a value for each change, once there is everything
 * that the configuration wants. Changes that come while the last one is dealt with are one. An agent that is away or
 * gives nothing is asked again for as long as it takes.
 */
export class IdentityFeed {
  readonly #api: WorkloadApi
  readonly #config: HelperConfig
  readonly #options: FollowOptions
  #x509: X509Context | undefined
  #jwtBundles: ReadonlyMap<TrustDomain, string> | undefined
  readonly #jwtSvids = new Map<string, string>()
  #changed = Promise.withResolvers<void>()
  #hasNews = false
  /** The last failure that has not been followed by a success. */
  #trouble: unknown

  constructor(api: WorkloadApi, config: HelperConfig, options: FollowOptions) {
    this.#api = api
    this.#config = config
    this.#options = options
  }

  /** Why there is nothing yet, or nothing new. */
  get trouble(): unknown {
    return this.#trouble
  }

  /** Whether something has come since `deal` was called. */
  get hasNews(): boolean {
    return this.#hasNews
  }

  /** Runs `deal` with each new value until `signal` aborts or it throws. */
  async run(signal: AbortSignal, deal: (of: Identities, signal: AbortSignal) => Promise<void>) {
    const config = this.#config
    const tasks: Task[] = [(stop) => this.#deal(stop, deal)]
    if (wantsX509(config)) {
      tasks.push((stop) =>
        this.#again(stop, async (progress) => {
          for await (const x509 of this.#api.x509Contexts(stop)) {
            this.#x509 = x509
            progress()
          }
        }),
      )
    }
    if (wantsJwtBundles(config)) {
      tasks.push((stop) =>
        this.#again(stop, async (progress) => {
          for await (const bundles of this.#api.jwtBundleSets(stop)) {
            this.#jwtBundles = bundles
            progress()
          }
        }),
      )
    }
    for (const wanted of config.jwt_svids) {
      tasks.push((stop) => this.#again(stop, (progress) => this.#keepJwt(wanted, progress, stop)))
    }
    await runTasks(signal, tasks)
  }

  async #deal(
    signal: AbortSignal,
    deal: (of: Identities, signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const { promise: aborted, reject } = Promise.withResolvers<never>()
    aborted.catch(() => {
      // Whoever waits hears of it.
    })
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    for (;;) {
      await Promise.race([this.#changed.promise, aborted])
      signal.throwIfAborted()
      this.#changed = Promise.withResolvers<void>()
      this.#hasNews = false
      const identities = {
        x509: this.#x509,
        jwtBundles: this.#jwtBundles,
        jwtSvids: new Map(this.#jwtSvids),
      }
      if (isComplete(this.#config, identities)) await deal(identities, signal)
    }
  }

  async #keepJwt(
    wanted: HelperConfig['jwt_svids'][number],
    progress: () => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock } = this.#options
    const { hint } = this.#config
    for (;;) {
      const audience = [wanted.jwt_audience, ...wanted.jwt_extra_audiences]
      const svids = await this.#api.jwtSvids(audience, { signal })
      const svid = hint === undefined ? svids[0] : svids.find((one) => one.hint === hint)
      if (svid === undefined) {
        throw new AssayError('not-found', `no identity has the hint '${hint}'`)
      }
      this.#jwtSvids.set(wanted.jwt_svid_file_name, svid.token)
      progress()
      const left = svid.expiresAtSeconds - clock.now().epochMilliseconds / 1000
      const seconds = Math.max(minJwtRenewalSeconds, Math.floor(left / 2))
      await clock.sleep(Temporal.Duration.from({ seconds }), signal)
    }
  }

  /** Does it again whenever it fails or ends. */
  async #again(
    signal: AbortSignal,
    follow: (progress: () => void) => Promise<void>,
  ): Promise<void> {
    const { clock, random, onTrouble } = this.#options
    const backoff = new Backoff({
      first: Temporal.Duration.from({ milliseconds: 200 }),
      longest: Temporal.Duration.from({ seconds: 5 }),
      random,
    })
    let told = ''
    for (;;) {
      let trouble: unknown = new AssayError('unavailable', 'the agent ended the stream')
      try {
        await follow(() => {
          backoff.reset()
          told = ''
          this.#trouble = undefined
          this.#hasNews = true
          this.#changed.resolve()
        })
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof AssayError)) throw error
        trouble = error
      }
      this.#trouble = trouble
      // The same trouble, but for the number of the request, is told once.
      const [text = ''] = messageOf(trouble).split(' [')
      if (told !== text) onTrouble(trouble)
      told = text
      await clock.sleep(backoff.next(), signal)
    }
  }
}
