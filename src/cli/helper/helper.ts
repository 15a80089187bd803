import { Backoff } from '#base/backoff.ts'
import { equalBytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import type { Notifier } from '#host/notify.ts'
import type { WorkloadApi } from '#workload-client/workload-api.ts'
import { timeText } from '../print.ts'
import type { HelperConfig } from './config.ts'
import { IdentityFeed } from './follow.ts'
import { chosenSvid, type Identities, reloadedFiles, tokenFiles } from './identity-files.ts'
import { loadOwnership } from './ownership.ts'
import { reload } from './reload.ts'
import { VersionedDirectory, type VersionFile } from './versioned-directory.ts'

/** Two exchanges of the files are this far apart at least: a program that reads several of them gets its time. */
const settle = Temporal.Duration.from({ seconds: 1 })

/** Something that happened, for the log. */
export type HelperEvent =
  | {
      readonly event: 'written'
      readonly files: readonly string[]
      /** Undefined: there is no X.509-SVID among them. */
      readonly spiffeId: string | undefined
      /** Unix time; zero when there is no X.509-SVID. */
      readonly expiresAtSeconds: number
    }
  | { readonly event: 'reloaded' | 'not-reloaded' | 'waiting' | 'note'; readonly detail: string }

export interface HelperOptions {
  readonly clock: Clock
  readonly random: Random
  readonly notifier: Notifier
  /** For the command that reloads. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** End after everything was written, and the program told, once. */
  readonly once: boolean
  report(event: HelperEvent): void
}

/** Ends the feed once everything is done. */
const done = new Error('done')

/** Keeps the files of a configuration as the agent has them. */
export class Helper {
  readonly #config: HelperConfig
  readonly #options: HelperOptions
  readonly #directory: VersionedDirectory
  readonly #feed: IdentityFeed
  #notes = ''
  /** What the program has been told of. */
  #told: readonly VersionFile[] = []

  private constructor(
    config: HelperConfig,
    parts: { options: HelperOptions; directory: VersionedDirectory; api: WorkloadApi },
  ) {
    this.#config = config
    this.#options = parts.options
    this.#directory = parts.directory
    const { clock, random, notifier, report } = parts.options
    this.#feed = new IdentityFeed(parts.api, config, {
      clock,
      random,
      onTrouble: (error) => {
        const detail = messageOf(error)
        notifier.status(`waiting for the agent: ${detail}`)
        report({ event: 'waiting', detail })
      },
    })
  }

  /** @throws AssayError `failed-precondition` when files cannot be kept there. */
  static async open(
    config: HelperConfig,
    api: WorkloadApi,
    options: HelperOptions,
  ): Promise<Helper> {
    const { layout, owner, group, cert_dir } = config
    const ownership = await loadOwnership(owner, group)
    const { random } = options
    const directory = await VersionedDirectory.open(cert_dir, { layout, ownership, random })
    return new Helper(config, { options, directory, api })
  }

  /** Why the agent gives nothing now; undefined when it does. */
  get trouble(): unknown {
    return this.#feed.trouble
  }

  /**
   * Follows the agent until `signal` aborts; with `once`, until the first success.
   *
   * @returns whether it came to an end by itself, which it does with `once` only.
   * @throws AssayError when files cannot be written; with `once`, when the program cannot be told.
   */
  async run(signal: AbortSignal): Promise<boolean> {
    const { clock, once } = this.#options
    try {
      await this.#feed.run(signal, async (identities, stop) => {
        await this.#take(identities, stop)
        if (once) throw done
        await clock.sleep(settle, stop)
      })
      return false
    } catch (error) {
      if (error === done) return true
      throw error
    }
  }

  async #take(identities: Identities, signal: AbortSignal): Promise<void> {
    const { clock, notifier, report } = this.#options
    const nowSeconds = Math.floor(clock.now().epochMilliseconds / 1000)
    const { files, notes } = reloadedFiles(this.#config, identities, nowSeconds)
    if (notes.join() !== this.#notes) for (const detail of notes) report({ event: 'note', detail })
    this.#notes = notes.join()
    const svid = identities.x509 && chosenSvid(this.#config, identities.x509)
    const expiresAtSeconds = svid?.certificates[0]?.notAfterSeconds ?? 0
    const all = [...tokenFiles(this.#config, identities), ...files]
    if (await this.#directory.replace(all)) {
      const names = all.map(({ name }) => name)
      report({ event: 'written', files: names, spiffeId: svid?.spiffeId, expiresAtSeconds })
    }
    const state =
      svid === undefined
        ? 'the files are as the agent has them'
        : `${svid.spiffeId} until ${timeText(expiresAtSeconds)}`
    notifier.status(state)
    if (!isSameFiles(this.#told, files)) await this.#tell(files, signal)
    notifier.ready()
  }

  /** Tells the program, until that works or there is something newer to tell of. */
  async #tell(files: readonly VersionFile[], signal: AbortSignal): Promise<void> {
    const { clock, environment, notifier, once, random, report } = this.#options
    const backoff = new Backoff({
      first: Temporal.Duration.from({ seconds: 1 }),
      longest: Temporal.Duration.from({ minutes: 1 }),
      random,
    })
    for (;;) {
      try {
        const { done: isDone, detail } = await reload(this.#config, { signal, environment })
        report({ event: isDone ? 'reloaded' : 'note', detail })
        this.#told = files
        return
      } catch (error) {
        if (once || !(error instanceof AssayError)) throw error
        notifier.status(error.message)
        report({ event: 'not-reloaded', detail: error.message })
        // The files are right: who waits for them need not wait for this.
        notifier.ready()
        await clock.sleep(backoff.next(), signal)
        if (this.#feed.hasNews) return
      }
    }
  }
}

const isSameFiles = (a: readonly VersionFile[], b: readonly VersionFile[]): boolean =>
  a.length === b.length &&
  a.every(({ name, content }, index) => {
    const other = b[index]
    return other?.name === name && equalBytes(other.content, content)
  })
