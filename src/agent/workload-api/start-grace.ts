import type { Clock } from '#base/clock.ts'
import type { Identities } from '../manager/identities.ts'
import type { AgentStatus } from '../status.ts'

export interface StartGraceOptions {
  readonly identities: Pick<Identities, 'isSynchronized'>
  readonly status: AgentStatus
  readonly clock: Clock
  /** How long from now on; undefined: not at all. */
  readonly limit: Temporal.Duration | undefined
}

/**
 * The first moments of an agent, in which calls wait for its first word of the server instead of being told that there
 * is none. What connected while systemd alone held the socket so sees nothing of a restart.
 */
export class StartGrace implements Disposable {
  readonly #over: Promise<void>
  readonly #stop = new AbortController()
  readonly #listening: Disposable

  constructor({ identities, status, clock, limit }: StartGraceOptions) {
    const known = Promise.withResolvers<void>()
    this.#listening = status.onChange(() => {
      if (identities.isSynchronized || status.state === 'stopped') known.resolve()
    })
    const late =
      limit === undefined
        ? Promise.resolve()
        : clock.sleep(limit, this.#stop.signal).catch(() => {
            // It was known in time, or the agent ends.
          })
    this.#over = Promise.race([known.promise, late]).then(() => this[Symbol.dispose]())
  }

  /** Returns when nothing is gained by waiting. @throws the signal's reason when it has aborted by then. */
  async wait(signal: AbortSignal): Promise<void> {
    await this.#over
    signal.throwIfAborted()
  }

  [Symbol.dispose](): void {
    this.#listening[Symbol.dispose]()
    this.#stop.abort()
  }
}
