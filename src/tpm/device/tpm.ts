import { concatBytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import type { Random } from '#base/random.ts'
import { structureTag } from '../wire/constants.ts'
import { Reader, u16, u32 } from '../wire/marshal.ts'
import { type Authorization, SealedCommand } from './session.ts'
import { parseTcti } from './tcti.ts'
import { responseCode, TpmError, tpmResponseCode } from './tpm-error.ts'
import { openTransport, type Transport } from './transport.ts'

/** Something a command acts on: its handle and its Name, which authorizations are bound to. */
export interface Entity {
  readonly handle: number
  readonly name: Uint8Array
}

/** A hierarchy, a register or a session, whose Name is its handle (TPM 2.0 Part 1 §16). */
export const entity = (handle: number): Entity => ({ handle, name: u32(handle) })

/** One command. */
export interface TpmCommand {
  /** TPM_CC (TPM 2.0 Part 2 §6.5.2). */
  readonly code: number
  /** For messages: `TPM2_Quote`. */
  readonly name: string
  /** Those that are authorized come first. */
  readonly handles?: readonly Entity[]
  readonly authorizations?: readonly Authorization[]
  readonly parameters?: Uint8Array
  readonly returnsHandle?: boolean
  /** Default: 30 seconds. */
  readonly deadlineMs?: number
}

/** What a TPM is used with. */
export interface TpmDependencies {
  readonly clock: Clock
  readonly random: Random
}

const defaultDeadlineMs = 30_000
const none = new Uint8Array(0)

/** The TPM did not begin the command: it is to be sent again as it is (Part 1 §30.6). */
const retryCodes: ReadonlySet<number> = new Set([
  responseCode.yielded,
  responseCode.testing,
  responseCode.retry,
  responseCode.nvRate,
])
const firstRetryMs = 10
const lastRetryMs = 1280

/** A connection to a TPM. Commands are run one at a time. After an I/O error it is of no use any more. */
export class Tpm implements AsyncDisposable {
  readonly #transport: Transport
  readonly #dependencies: TpmDependencies
  /** Whether a resource manager frees what is left in the TPM when this connection ends. */
  readonly managed: boolean

  constructor(transport: Transport, dependencies: TpmDependencies, options: { managed: boolean }) {
    this.#transport = transport
    this.#dependencies = dependencies
    this.managed = options.managed
  }

  /**
   * @param tcti see `parseTcti`.
   * @throws AssayError with a reason of `problems.ts`; TpmError.
   */
  static async open(tcti: string, dependencies: TpmDependencies): Promise<Tpm> {
    const parsed = parseTcti(tcti)
    const transport = await openTransport(parsed, dependencies.clock)
    return new Tpm(transport, dependencies, { managed: parsed.managed })
  }

  get random(): Random {
    return this.#dependencies.random
  }

  /**
   * Runs one command and returns what follows the handles and sizes of its response. While the TPM is busy the
   * command is sent again, for two and a half seconds.
   *
   * @throws TpmError with the TPM's response code; AssayError; RangeError for a response that is not well-formed.
   */
  async execute(command: TpmCommand): Promise<{ readonly handle: number; readonly reply: Reader }> {
    const { code, handles = [], authorizations = [], parameters = none } = command
    const names = handles.map(({ name }) => name)
    const sealed =
      authorizations.length === 0
        ? undefined
        : new SealedCommand({ code, names, parameters, authorizations }, this.random)
    const body = concatBytes(
      u32(code),
      ...handles.map(({ handle }) => u32(handle)),
      sealed?.bytes ?? parameters,
    )
    const tag = sealed === undefined ? structureTag.noSessions : structureTag.sessions
    const response = await this.#submit(command, concatBytes(u16(tag), u32(body.length + 6), body))
    const handle = command.returnsHandle === true ? response.u32() : 0
    return { handle, reply: sealed === undefined ? response : sealed.open(response) }
  }

  /** TPM2_FlushContext: frees a key's or a session's place. */
  async flush(handle: number): Promise<void> {
    await this.execute({ code: 0x165, name: 'TPM2_FlushContext', parameters: u32(handle) })
  }

  /** {@link flush} on the way out of a scope: a connection that is gone has nothing to free. */
  async release(handle: number): Promise<void> {
    if (this.#transport.broken) return
    try {
      await this.flush(handle)
    } catch (error) {
      if (!this.#transport.broken) throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#transport.close()
  }

  async #submit(command: TpmCommand, bytes: Uint8Array): Promise<Reader> {
    const { name, deadlineMs = defaultDeadlineMs } = command
    for (let delayMs = firstRetryMs; ; delayMs *= 2) {
      const response = new Reader(await this.#transport.transmit(bytes, deadlineMs))
      response.u16()
      if (response.u32() !== response.left + 6)
        throw new RangeError(`the response to ${name} does not have the length it says`)
      const rc = response.u32()
      if (rc === 0) return response
      if (!retryCodes.has(tpmResponseCode(rc) ?? 0) || delayMs > lastRetryMs)
        throw new TpmError(rc, name)
      await this.#dependencies.clock.sleep(
        Temporal.Duration.from({ milliseconds: delayMs }),
        neverAborted,
      )
    }
  }
}

const neverAborted = new AbortController().signal
