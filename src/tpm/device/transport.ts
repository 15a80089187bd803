import type { Clock } from '#base/clock.ts'
import { type NativeConnection, tpmAddon } from './native.ts'
import { deviceProblem } from './problems.ts'
import { diagnose, type Tcti } from './tcti.ts'
import { TpmError } from './tpm-error.ts'

/** Commands to a TPM and its responses, as bytes. After any failure it is broken, and stays so. */
export interface Transport {
  /**
   * One at a time.
   *
   * @throws TpmError when the connection fails; AssayError `unavailable`, reason `tpm-slow`, at the deadline.
   */
  transmit(command: Uint8Array, deadlineMs: number): Promise<Uint8Array>
  close(): void
  readonly broken: boolean
}

/**
 * Commands that passed their deadline and still occupy a thread, because not every kind of connection can be
 * interrupted. While there is one nothing more is sent to that TPM, so that a TPM that hangs costs one thread.
 */
const hanging = new Map<string, number>()

/**
 * Connects to a TPM.
 *
 * @throws AssayError with a reason of `problems.ts`; TpmError when tpm2-tss fails and it cannot be said why.
 */
export async function openTransport(tcti: Tcti, clock: Clock): Promise<Transport> {
  if ((hanging.get(tcti.text) ?? 0) > 0)
    throw deviceProblem('tpm-slow', `${tcti.text} still has not answered an earlier command`)
  return new NativeTransport(tcti.text, await connect(tcti), clock)
}

async function connect(tcti: Tcti): Promise<NativeConnection> {
  try {
    return await tpmAddon().open(tcti.text)
  } catch (cause) {
    await diagnose(tcti, cause)
    throw typed(cause)
  }
}

class NativeTransport implements Transport {
  readonly #tcti: string
  readonly #connection: NativeConnection
  readonly #clock: Clock
  #broken = false

  constructor(tcti: string, connection: NativeConnection, clock: Clock) {
    this.#tcti = tcti
    this.#connection = connection
    this.#clock = clock
  }

  get broken(): boolean {
    return this.#broken
  }

  async transmit(command: Uint8Array, deadlineMs: number): Promise<Uint8Array> {
    const done = new AbortController()
    // Devices keep the deadline themselves; ours comes a little later and is for those that do not.
    const patience = Temporal.Duration.from({ milliseconds: deadlineMs + 500 })
    const answer = this.#connection.transmit(command, deadlineMs)
    const late = this.#clock.sleep(patience, done.signal).then(() => undefined)
    try {
      const response = await Promise.race([answer, late])
      if (response !== undefined) return response
      this.#leaveHanging(answer)
      throw deviceProblem('tpm-slow', `${this.#tcti} did not answer within ${deadlineMs} ms`)
    } catch (error) {
      this.#broken = true
      throw typed(error)
    } finally {
      done.abort()
      await late.catch(() => {}) // it rejects because we aborted it
    }
  }

  close(): void {
    this.#connection.close()
  }

  #leaveHanging(answer: Promise<unknown>): void {
    const count = (change: number): void => {
      hanging.set(this.#tcti, (hanging.get(this.#tcti) ?? 0) + change)
    }
    const ended = (): void => count(-1)
    count(1)
    answer.then(ended, ended)
  }
}

/** The addon's errors as {@link TpmError}; others as they are. */
function typed(error: unknown): unknown {
  if (!(error instanceof Error) || !('rc' in error) || error instanceof TpmError) return error
  return typeof error.rc === 'number' ? new TpmError(error.rc, error.message) : error
}
