import type { Log } from '#base/log.ts'
import type { PinRefusals, RefusedPin } from './pin-refusals.ts'

/**
 * What the token said to the PIN, as {@link PinRefusals} keeps it: written down one after the other, without anybody
 * waiting for it, and not at all when there is nowhere to.
 */
export class PinMemory {
  readonly #refusals: PinRefusals | undefined
  readonly #log: Log
  #writing: Promise<void> = Promise.resolve()

  constructor(refusals: PinRefusals | undefined, log: Log) {
    this.#refusals = refusals
    this.#log = log
  }

  /** What the token said when it refused this PIN in an earlier life of the process; undefined: it has not. */
  async earlierRefusal(pin: RefusedPin): Promise<string | undefined> {
    return await this.#refusals?.find(pin)
  }

  /** The token has refused the PIN, which was in its file when that had this version. */
  refused(pin: RefusedPin & { readonly version: string }, detail: string): void {
    this.#write(async (refusals) => {
      try {
        await refusals.keep(pin, detail)
      } catch (error) {
        const message = 'cannot remember that the hsm refused the PIN: a restart will try it again'
        this.#log.error({ error }, message)
      }
    })
  }

  /** The token has taken the PIN. */
  taken(): void {
    this.#write(async (refusals) => {
      try {
        await refusals.forget()
      } catch (error) {
        this.#log.warn({ error }, 'cannot forget that the hsm refused the PIN once')
      }
    })
  }

  /** Resolves when all is written down. */
  async written(): Promise<void> {
    await this.#writing
  }

  #write(note: (refusals: PinRefusals) => Promise<void>): void {
    const refusals = this.#refusals
    if (refusals !== undefined) this.#writing = this.#writing.then(() => note(refusals))
  }
}
