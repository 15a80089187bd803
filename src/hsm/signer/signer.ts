import type { Clock } from '#base/clock.ts'
import { AssayError, type ErrorCode, messageOf } from '#base/errors.ts'
import { nextTurn } from '#base/event-loop.ts'
import { type Random, randomFraction } from '#base/random.ts'
import { Deadlines } from '../deadlines.ts'
import type { Frame } from '../frame.ts'
import {
  encodeMessage,
  type Failure,
  frameKind,
  type OpenRequest,
  parseDestroyRequest,
  parseGenerateRequest,
  parseOpenRequest,
  parseSealRequest,
  type SignerEvent,
} from '../protocol.ts'
import { Cryptoki, failureKind } from './cryptoki.ts'
import {
  describeFailure,
  isPinRefusal,
  LoginInterruptedError,
  PinWithheldError,
  Token,
} from './token.ts'

/** After so many failed openings in a row a fresh process may do better than this one. */
const maxOpenAttempts = 60

/** A token that is opened. */
export interface PermittedToken extends OpenRequest {
  /** The keys whose whole label is `labelPrefix` are used, and nothing on it is made, destroyed or sealed. */
  readonly isForSigningAlone?: boolean
}

/** Says what is opened when a server asks for `request`. @throws AssayError `failed-precondition` when it may not. */
export type PermitToken = (request: OpenRequest) => PermittedToken

/** What a signer is given by its process. */
export interface SignerDeps {
  readonly clock: Clock
  readonly random: Random
  /** Aborts when the server is gone. */
  readonly signal: AbortSignal
  readonly send: (kind: number, id: number, body: Uint8Array) => void
  readonly permit: PermitToken
  /** Called once, when this signer can do no more: the process is to end. */
  readonly onEnd: () => void
}

/**
 * Serves one server: opens the token, signs, and opens it again when it was lost. Answers every request,
 * except while a call into the module hangs; then the server ends the process.
 */
export class Signer {
  readonly #deps: SignerDeps
  readonly #deadlines: Deadlines
  #request: PermittedToken | undefined
  #cryptoki: Cryptoki | undefined
  #token: Token | undefined
  #lastRef = 0
  #hasJustOpened = false
  /** Some modules answer a wrong PIN with a code that does not say so; tokens lock after three or more. */
  #interruptedLogins = 0

  constructor(deps: SignerDeps) {
    this.#deps = deps
    this.#deadlines = new Deadlines(deps.clock, deps.signal)
  }

  /** Takes one frame. Never throws for what is in it. */
  async receive(frame: Frame): Promise<void> {
    try {
      switch (frame.kind) {
        case frameKind.open:
          if (this.#request !== undefined)
            throw new AssayError('failed-precondition', 'open already')
          return await this.#begin(parseOpenRequest(frame.body))
        case frameKind.reopen:
          if (this.#token !== undefined) await this.#recover(this.#token, 'the server asked for it')
          return
        default:
          this.#deps.send(frameKind.result, frame.id, await this.#answer(frame))
      }
    } catch (error) {
      this.#fail(frame.id, error)
    }
  }

  /** Lets go of the token in order, as far as it lets us. */
  async close(): Promise<void> {
    await this.#token?.close('the signer is ending')
  }

  async #begin(request: OpenRequest): Promise<void> {
    try {
      this.#request = this.#deps.permit(request)
    } catch (error) {
      this.#tell({ state: 'absent', detail: describeFailure(error), needsOperator: true })
      return this.#deps.onEnd()
    }
    await this.#openUntilReady(this.#request)
  }

  async #answer(frame: Frame): Promise<Uint8Array> {
    const token = this.#token
    if (token === undefined) throw new AssayError('unavailable', 'the token is not open')
    try {
      switch (frame.kind) {
        case frameKind.sign: {
          const { buffer, byteOffset, length } = frame.body
          if (length < 4) throw new AssayError('invalid-argument', 'sign request is too short')
          const ref = new DataView(buffer, byteOffset).getUint32(0)
          // The frame is a view into the read buffer, and the digest may wait for a session.
          return await token.sign(ref, new Uint8Array(frame.body.subarray(4)))
        }
        case frameKind.generate: {
          const { label, type } = parseGenerateRequest(frame.body)
          return encodeMessage(await token.generate(this.#ours(label), type))
        }
        case frameKind.destroy: {
          const request = parseDestroyRequest(frame.body)
          await token.destroy({ ...request, label: this.#ours(request.label) })
          return new Uint8Array()
        }
        case frameKind.seal: {
          const request = parseSealRequest(frame.body)
          return await token.seal({ ...request, label: this.#ours(request.label) })
        }
        case frameKind.unseal: {
          const request = parseSealRequest(frame.body)
          return await token.unseal({ ...request, label: this.#ours(request.label) })
        }
        case frameKind.probe:
          token.probe()
          return new Uint8Array()
        default:
          throw new AssayError('invalid-argument', `unknown frame kind ${frame.kind}`)
      }
    } catch (error) {
      if (isTokenLoss(error, frame.kind)) void this.#recover(token, describeFailure(error))
      throw error
    }
  }

  /** Nothing without our prefix is ever made or destroyed. */
  #ours(label: string): string {
    if (this.#request?.isForSigningAlone === true) {
      throw new AssayError('invalid-argument', `the keys of this token sign, and nothing else`)
    }
    const prefix = this.#request?.labelPrefix
    if (prefix === undefined || !label.startsWith(prefix) || label === '') {
      throw new AssayError('invalid-argument', `label ${label} is not under ${prefix}`)
    }
    return label
  }

  #fail(id: number, error: unknown): void {
    const failure: Failure = { code: codeOf(error), message: describeFailure(error) }
    this.#deps.send(frameKind.failure, id, encodeMessage(failure))
  }

  #tell(event: SignerEvent): void {
    this.#deps.send(frameKind.event, 0, encodeMessage(event))
  }

  /** The server hears of the loss before whoever noticed it gets an answer. */
  async #recover(token: Token, detail: string): Promise<void> {
    if (this.#token !== token || this.#request === undefined) return
    this.#token = undefined
    this.#tell({ state: 'recovering', detail })
    try {
      await token.close(`the token is being opened again: ${detail}`)
    } catch {
      // A module that cannot finalise may still initialise; opening will tell.
    }
    if (this.#hasJustOpened && !(await this.#pause())) return
    await this.#openUntilReady(this.#request)
  }

  async #openUntilReady(request: PermittedToken): Promise<void> {
    for (let attempt = 1; attempt <= maxOpenAttempts; attempt++) {
      try {
        this.#cryptoki ??= loadModule(request.module)
        return await this.#openOnce(this.#cryptoki, request)
      } catch (error) {
        const detail = describeFailure(error)
        if (error instanceof LoginInterruptedError) this.#interruptedLogins++
        if (isPinRefusal(error) || this.#interruptedLogins > 1) {
          this.#tell({ state: 'refused', detail, wasSent: !(error instanceof PinWithheldError) })
          break
        }
        const needsOperator = error instanceof AssayError && error.code === 'failed-precondition'
        this.#tell({ state: 'absent', detail, needsOperator })
      }
      if (!(await this.#pause())) return
    }
    this.#deps.onEnd()
  }

  /** About a second. Resolves with whether there is still a server to serve. */
  async #pause(): Promise<boolean> {
    const milliseconds = 700 + Math.round(300 * randomFraction(this.#deps.random))
    try {
      await this.#deps.clock.sleep(Temporal.Duration.from({ milliseconds }), this.#deps.signal)
      return true
    } catch {
      return false
    }
  }

  /** A token that opens and then does not sign is not opened in a tight loop. */
  async #noteOpening(): Promise<void> {
    this.#hasJustOpened = true
    await this.#pause()
    this.#hasJustOpened = false
  }

  async #openOnce(cryptoki: Cryptoki, request: PermittedToken): Promise<void> {
    const token = await Token.open(cryptoki, request, {
      random: this.#deps.random,
      deadlines: this.#deadlines,
      nextRef: () => ++this.#lastRef,
      isOurs: (label) =>
        request.isForSigningAlone === true
          ? label === request.labelPrefix
          : label.startsWith(request.labelPrefix),
      announceLogin: async (pinVersion) => {
        this.#tell({ state: 'logging-in', pinVersion })
        await nextTurn()
      },
    })
    this.#interruptedLogins = 0
    try {
      const listed = await token.listKeys()
      this.#token = token
      void this.#noteOpening()
      const { label, serial, model } = token.info
      this.#tell({ state: 'ready', token: { label, serial, model }, ...listed })
    } catch (error) {
      this.#token = undefined
      await token.close('its keys could not be listed').catch(() => undefined)
      throw error
    }
  }
}

/** @throws AssayError `failed-precondition`: what cannot be loaded now never will be. */
function loadModule(path: string): Cryptoki {
  try {
    return new Cryptoki(path)
  } catch (cause) {
    const message = `cannot load the pkcs#11 module ${path}: ${messageOf(cause)}`
    throw new AssayError('failed-precondition', message, { cause })
  }
}

function isTokenLoss(error: unknown, kind: number): boolean {
  if (failureKind(error) === 'token') return true
  return kind === frameKind.probe && error instanceof AssayError && error.code === 'unavailable'
}

function codeOf(error: unknown): ErrorCode {
  if (error instanceof AssayError) return error.code
  if (error instanceof SyntaxError) return 'invalid-argument'
  return failureKind(error) === 'token' ? 'unavailable' : 'internal'
}
