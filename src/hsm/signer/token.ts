import { equalBytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import type { Deadlines } from '../deadlines.ts'
import { type HsmKeyType, profileOf } from '../key-type.ts'
import type {
  DestroyRequest,
  KeyDescription,
  OpenRequest,
  RefusedKey,
  SealRequest,
} from '../protocol.ts'
import {
  type Cryptoki,
  ck,
  cryptokiCode,
  failureKind,
  type Handle,
  type TokenInfo,
} from './cryptoki.ts'
import { type FoundKey, KeyFinder } from './key-finder.ts'
import {
  generationMechanism,
  keyIdOf,
  placementAttributes,
  privateKeyTemplate,
  publicKeyTemplate,
  signInput,
} from './key-template.ts'
import { OpenPin } from './pin.ts'
import { readPublicKey } from './public-key.ts'
import { SealingKey } from './sealing-key.ts'
import { SessionPool } from './session-pool.ts'

/** Four times the sessions of a busy server would wait two seconds on an HSM of 128 signatures a second. */
const queueLimits = { queueLength: 256, waitMs: 2000 }

/** What a token needs beside its module. */
export interface TokenDeps {
  readonly random: Random
  readonly deadlines: Deadlines
  /** Numbers keys; never gives the same number twice in one process. */
  readonly nextRef: () => number
  /** Whether keys of this label are used. */
  readonly isOurs: (label: string) => boolean
  /** Tells the server that the PIN is about to be sent; settles once that has left. */
  readonly announceLogin: (pinVersion: string) => Promise<void>
}

/** The PIN must not be tried. Unlike a module's own refusal this comes before the attempt. */
export class PinWithheldError extends Error {
  override readonly name = 'PinWithheldError'
}

/** The PIN was sent, and whether the token took it for wrong cannot be told from the answer. */
export class LoginInterruptedError extends Error {
  override readonly name = 'LoginInterruptedError'
}

/**
 * A token that is logged in to: its sessions, and the keys on it that are ours. Void after {@link close},
 * or after any error of the kind `token`.
 */
export class Token {
  readonly info: TokenInfo
  readonly #cryptoki: Cryptoki
  readonly #deps: TokenDeps
  readonly #pool: SessionPool<Handle>
  readonly #finder: KeyFinder
  readonly #sealing: SealingKey
  readonly #keys = new Map<number, FoundKey>()
  #probes = 0
  #writing: Promise<unknown> = Promise.resolve()

  /**
   * Initialises the module, finds the one token that is meant, opens the sessions one after the other and
   * logs in once: the PIN is sent at most once per call.
   *
   * @throws Error of any kind; the module is then finalised again.
   */
  static async open(cryptoki: Cryptoki, request: OpenRequest, deps: TokenDeps): Promise<Token> {
    using pin = new OpenPin(request)
    try {
      cryptoki.initialize()
      const info = findToken(cryptoki.tokens(), request)
      const wanted = Math.min(Math.max(request.sessions, 1), 64)
      // One session is kept free for generating and destroying where the token counts them.
      const count = info.maxSessions > 1 ? Math.min(wanted, info.maxSessions - 1) : wanted
      const sessions: Handle[] = []
      for (let i = 0; i < count; i++) sessions.push(cryptoki.openSession(info.slot, 'read'))
      const [first] = sessions
      if (first === undefined) throw new RangeError('token allows no session')
      verifyPinMayBeSent(info, request)
      await deps.announceLogin(pin.version)
      logIn(cryptoki, first, pin)
      return new Token(cryptoki, { info, request, sessions, deps })
    } catch (error) {
      try {
        cryptoki.finalize()
      } catch {
        // What made opening fail says more than what made cleaning up fail.
      }
      throw error
    }
  }

  private constructor(
    cryptoki: Cryptoki,
    opened: {
      readonly info: TokenInfo
      readonly request: OpenRequest
      readonly sessions: readonly Handle[]
      readonly deps: TokenDeps
    },
  ) {
    this.#cryptoki = cryptoki
    this.info = opened.info
    this.#deps = opened.deps
    this.#pool = new SessionPool(opened.sessions, queueLimits, opened.deps.deadlines)
    this.#finder = new KeyFinder(cryptoki, opened.deps.isOurs)
    this.#sealing = new SealingKey(cryptoki, opened.deps.random)
  }

  /** Every key of ours, checked, and what is under our prefix without being one. */
  async listKeys(): Promise<{ keys: KeyDescription[]; refused: RefusedKey[] }> {
    return this.#withSession(async (session) => {
      const { found, refused } = this.#finder.all(session)
      return { keys: found.map((key) => this.#register(key)), refused: [...refused] }
    })
  }

  /**
   * Signs a digest made by the type's hash.
   *
   * @throws AssayError `invalid-argument` for an unknown reference or a digest of another length.
   */
  async sign(ref: number, digest: Uint8Array): Promise<Uint8Array> {
    const key = this.#keys.get(ref)
    if (key === undefined) throw new AssayError('invalid-argument', `no key has reference ${ref}`)
    const { digestBytes, signatureBytes } = profileOf(key.type)
    if (digest.length !== digestBytes) {
      throw new AssayError('invalid-argument', `digest of ${digest.length} bytes for ${key.type}`)
    }
    const operation = { ...signInput(key.type, digest), signatureBytes }
    return this.#withSession((session) => this.#cryptoki.sign(session, key.handle, operation))
  }

  /** Makes a pair under a label that nothing on the token has. */
  generate(label: string, type: HsmKeyType): Promise<KeyDescription> {
    return this.#withWriteSession(async (session) => {
      const isTaken = this.#finder.objects(session, { label }, ck.CKO_PRIVATE_KEY).length > 0
      // Public keys alone are what a crash between the two copies leaves.
      if (!isTaken) this.#destroyAll(session, { label })
      if (this.#finder.objects(session, { label }).length > 0) {
        throw new AssayError(
          'already-exists',
          `cannot generate key: the token has an object ${label}`,
        )
      }
      const copied = await this.#generateByCopy(session, { label, type })
      if (copied !== undefined) {
        const made = this.#finder.one(session, { label, id: copied })
        if ('spki' in made) return this.#registerAlone(session, made)
        this.#destroyAll(session, { label, id: copied })
      }
      const id = this.#deps.random.bytes(20)
      try {
        await this.#generateInPlace(session, { label, type, id })
        const key = this.#finder.one(session, { label, id })
        if ('spki' in key) return this.#registerAlone(session, key)
        throw new AssayError('failed-precondition', `cannot generate key ${label}: ${key.why}`)
      } catch (error) {
        if (failureKind(error) === 'request') this.#destroyAll(session, { label, id })
        throw error
      }
    })
  }

  /** Destroys every object with that label, and with that CKA_ID if one is given; that there is none is no error. */
  destroy(which: DestroyRequest): Promise<void> {
    return this.#withWriteSession(async (session) => {
      for (const [ref, { label, id }] of this.#keys) {
        const isMeant = which.id === undefined || equalBytes(id, which.id)
        if (label === which.label && isMeant) this.#keys.delete(ref)
      }
      this.#destroyAll(session, which)
    })
  }

  /** Seals `data` with the key of that label, which is made when it is not there; see {@link SealingKey}. */
  seal(request: SealRequest): Promise<Uint8Array> {
    return this.#withWriteSession((session) => this.#sealing.seal(session, request))
  }

  /** The reverse of {@link seal}. */
  unseal(request: SealRequest): Promise<Uint8Array> {
    return this.#withWriteSession((session) => this.#sealing.unseal(session, request))
  }

  /**
   * Asks the token, and one idle session after the other in turn, whether they are still there.
   *
   * @throws Error of the kind `token` when one is not.
   */
  probe(): void {
    this.#cryptoki.tokenInfo(this.info.slot)
    const { idle } = this.#pool
    const session = idle[this.#probes++ % idle.length]
    if (session !== undefined && !this.#cryptoki.isLoggedIn(session)) {
      throw new AssayError('unavailable', 'a session is no longer logged in')
    }
  }

  /** Waits for what is under way, which may be for ever, then finalises the module. */
  async close(why: string): Promise<void> {
    await this.#pool.close(new AssayError('unavailable', why))
    await this.#writing
    this.#cryptoki.finalize()
  }

  /**
   * CKA_ID is to be derived from the public key, which is known only afterwards, and an object that is not
   * modifiable takes no new CKA_ID. So the pair is born in the session and copied on to the token with its
   * final attributes (C_CopyObject may set CKA_TOKEN, CKA_MODIFIABLE and CKA_ID: PKCS#11 v2.40 §5.7). The private half
   * comes last, so that whatever ends this before leaves no key behind.
   *
   * @returns the CKA_ID; undefined when the module does not copy keys.
   */
  async #generateByCopy(
    session: Handle,
    wanted: { label: string; type: HsmKeyType },
  ): Promise<Uint8Array | undefined> {
    const cryptoki = this.#cryptoki
    let id: Uint8Array | undefined
    try {
      const pair = await cryptoki.generateKeyPair(session, generationMechanism(wanted.type), {
        publicKey: publicKeyTemplate(wanted.type),
        privateKey: privateKeyTemplate(),
      })
      id = keyIdOf(readPublicKey(cryptoki, session, pair.publicKey).spki)
      const attributes = placementAttributes({ label: wanted.label, id })
      cryptoki.copyObject(session, pair.publicKey, attributes)
      cryptoki.copyObject(session, pair.privateKey, attributes)
      return id
    } catch (error) {
      if (failureKind(error) === 'token') throw error
      if (id !== undefined) this.#destroyAll(session, { label: wanted.label, id })
      return undefined
    }
  }

  /** For modules that cannot copy: CKA_ID is random, and only ties the halves together. */
  async #generateInPlace(
    session: Handle,
    wanted: { label: string; type: HsmKeyType; id: Uint8Array },
  ): Promise<void> {
    const placement = { label: wanted.label, id: wanted.id }
    await this.#cryptoki.generateKeyPair(session, generationMechanism(wanted.type), {
      publicKey: publicKeyTemplate(wanted.type, placement),
      privateKey: privateKeyTemplate(placement),
    })
  }

  #destroyAll(session: Handle, which: DestroyRequest): void {
    for (const object of this.#finder.objects(session, which)) {
      this.#cryptoki.destroyObject(session, object)
    }
  }

  /** @throws AssayError `already-exists` when somebody else made a key of that label meanwhile: ours goes, theirs stays. */
  #registerAlone(session: Handle, key: FoundKey): KeyDescription {
    const { label, id } = key
    const isAlone = this.#finder.objects(session, { label }, ck.CKO_PRIVATE_KEY).length === 1
    if (isAlone) return this.#register(key)
    this.#destroyAll(session, { label, id })
    throw new AssayError(
      'already-exists',
      `cannot generate key: another one with the label ${label} was made meanwhile`,
    )
  }

  #register(key: FoundKey): KeyDescription {
    const ref = this.#deps.nextRef()
    this.#keys.set(ref, key)
    const { label, type, spki: publicKey, id, attributes } = key
    return { ref, label, type, publicKey, id, attributes }
  }

  async #withSession<Result>(operation: (session: Handle) => Promise<Result>): Promise<Result> {
    let session: Handle | undefined = await this.#pool.take()
    try {
      return await operation(session)
    } catch (error) {
      session = this.#renewed(session, error)
      throw error
    } finally {
      this.#pool.give(session)
    }
  }

  /** After a failed C_Sign a session may stay in CKR_OPERATION_ACTIVE for ever, so it is not used again. */
  #renewed(session: Handle, error: unknown): Handle | undefined {
    if (cryptokiCode(error) === undefined) return session
    try {
      this.#cryptoki.closeSession(session)
      return this.#cryptoki.openSession(this.info.slot, 'read')
    } catch {
      return undefined // the token is going; whoever got `error` has it opened again
    }
  }

  /** One at a time, in a session of its own: whatever is left in it goes when it closes. */
  #withWriteSession<Result>(operation: (session: Handle) => Promise<Result>): Promise<Result> {
    const turn = this.#writing.then(async () => {
      const session = this.#cryptoki.openSession(this.info.slot, 'write')
      try {
        return await operation(session)
      } finally {
        try {
          this.#cryptoki.closeSession(session)
        } catch {
          // The operation's own outcome stands; a dead session shows at the next call.
        }
      }
    })
    this.#writing = turn.catch(() => undefined)
    return turn
  }
}

/** Labels are chosen by people and may be given twice; slot numbers change by themselves. */
function findToken(tokens: readonly TokenInfo[], request: OpenRequest): TokenInfo {
  const { tokenLabel, tokenSerial } = request
  const wantedFields = {
    label: tokenLabel,
    serial: tokenSerial,
    model: request.tokenModel,
    manufacturer: request.tokenManufacturer,
  }
  const matching = tokens.filter((token) =>
    (['label', 'serial', 'model', 'manufacturer'] as const).every(
      (field) => wantedFields[field] === undefined || token[field] === wantedFields[field],
    ),
  )
  const [token, ...others] = matching
  const { label, ...further } = wantedFields
  const wanted = [`token "${label}"`]
  for (const [field, value] of Object.entries(further)) {
    if (value !== undefined) wanted.push(`${field} ${value}`)
  }
  if (token === undefined) {
    const there = tokens.map(({ label, serial }) => `"${label}" serial ${serial}`).join(', ')
    throw new AssayError(
      'unavailable',
      `${request.module} has no ${wanted.join(' ')}, only: ${there || 'none'}`,
    )
  }
  if (others.length > 0) {
    const serials = matching.map(({ serial }) => serial).join(', ')
    throw new AssayError(
      'failed-precondition',
      `${request.module} has several tokens "${tokenLabel}": set token_serial to one of ${serials}`,
    )
  }
  return token
}

function verifyPinMayBeSent(info: TokenInfo, request: OpenRequest): void {
  if ((info.flags & ck.CKF_USER_PIN_LOCKED) !== 0) {
    throw new PinWithheldError('the PIN is locked (CKF_USER_PIN_LOCKED)')
  }
  if ((info.flags & ck.CKF_USER_PIN_FINAL_TRY) !== 0 && !request.spendFinalTry) {
    throw new PinWithheldError(
      'a wrong PIN would lock the token now (CKF_USER_PIN_FINAL_TRY), so it was not tried',
    )
  }
}

function logIn(cryptoki: Cryptoki, session: Handle, pin: OpenPin): void {
  try {
    pin.use((bytes) => cryptoki.login(session, bytes))
  } catch (error) {
    if (error instanceof AssayError || failureKind(error) === 'pin') throw error
    throw new LoginInterruptedError(describeFailure(error), { cause: error })
  }
}

/** Whether opening must not be tried again by itself. */
export function isPinRefusal(error: unknown): boolean {
  return error instanceof PinWithheldError || failureKind(error) === 'pin'
}

/** A failure in words, with the function where the module failed. */
export function describeFailure(error: unknown): string {
  const code = cryptokiCode(error)
  if (code === undefined) return messageOf(error)
  const { message, method } = error as { message: string; method?: string }
  const name = message.startsWith('CKR_VENDOR') ? `CKR 0x${code.toString(16)}` : message
  return method ? `${method}: ${name}` : name
}
