import { concatBytes, equalSecrets } from '#base/bytes.ts'
import type { Random } from '#base/random.ts'
import { digest, digestBytes, type HashAlgorithm } from '../wire/algorithms.ts'
import { permanentHandle } from '../wire/constants.ts'
import { decryptCfb, encryptCfb, hmac, kdfa } from '../wire/key-derivation.ts'
import { Reader, sized, u8, u32 } from '../wire/marshal.ts'

/** TPMA_SESSION (TPM 2.0 Part 2 §8.4). */
const sessionAttribute = { continueSession: 0x01, decrypt: 0x20, encrypt: 0x40 } as const
const aesBits = 128
const nonceBytes = 16
const none = new Uint8Array(0)

/**
 * A policy session, salted with a secret that only the TPM of a certified key could take out. It authorizes by
 * the policy it has satisfied, encrypts the first parameter each way, and proves that the response is that TPM's
 * (Part 1 §19 and §21). Keys it authorizes have an empty password.
 */
export interface PolicySession {
  readonly handle: number
  readonly hash: HashAlgorithm
  readonly key: Uint8Array
  nonceTpm: Uint8Array
}

/** How one handle of a command is authorized: by password, or by a session that ends with the command. */
export type Authorization =
  | { readonly kind: 'password'; readonly password: Uint8Array }
  | { readonly kind: 'policy'; readonly session: PolicySession }

/** The session key (Part 1 §19.6.8). */
export function deriveSessionKey(
  hash: HashAlgorithm,
  salt: Uint8Array,
  nonces: { readonly tpm: Uint8Array; readonly caller: Uint8Array },
): Uint8Array {
  return kdfa(hash, salt, { label: 'ATH', u: nonces.tpm, v: nonces.caller }, digestBytes(hash) * 8)
}

/** A command that is to be authorized. */
export interface AuthorizedCommand {
  readonly code: number
  /** Of all its handles, in order. */
  readonly names: readonly Uint8Array[]
  readonly parameters: Uint8Array
  readonly authorizations: readonly Authorization[]
}

/** A command with its authorizations, and what is needed to open the response to it. */
export class SealedCommand {
  /** `authorizationSize(4) ‖ authorizations ‖ parameters`, the first parameter encrypted if there is a session. */
  readonly bytes: Uint8Array
  readonly #command: AuthorizedCommand
  readonly #nonces: readonly Uint8Array[]

  constructor(command: AuthorizedCommand, random: Random) {
    const nonces = command.authorizations.map(() => random.bytes(nonceBytes))
    const parameters = encryptFirst(command, nonces)
    const area = command.authorizations.map((authorization, at) => {
      if (authorization.kind === 'password')
        return authorizationArea(permanentHandle.password, none, authorization.password)
      const { session } = authorization
      const nonce = nonces[at] ?? none
      const hashed = digest(session.hash, u32(command.code), ...command.names, parameters)
      const attributes = u8(sessionAttribute.decrypt | sessionAttribute.encrypt)
      const mac = hmac(session.hash, session.key, hashed, nonce, session.nonceTpm, attributes)
      return concatBytes(u32(session.handle), sized(nonce), attributes, sized(mac))
    })
    const areas = concatBytes(...area)
    this.bytes = concatBytes(u32(areas.length), areas, parameters)
    this.#command = command
    this.#nonces = nonces
  }

  /**
   * The parameters of the response, the first decrypted.
   *
   * @throws RangeError when it is not well-formed, or not by the TPM that shares the session's key.
   */
  open(response: Reader): Reader {
    const { code, authorizations } = this.#command
    let parameters = response.take(response.u32())
    const received = parameters
    for (const [at, authorization] of authorizations.entries()) {
      const nonceTpm = response.sized()
      const attributes = response.take(1)
      const mac = response.sized()
      if (authorization.kind === 'password') continue
      const { session } = authorization
      const nonce = this.#nonces[at] ?? none
      const hashed = digest(session.hash, u32(0), u32(code), received)
      const expected = hmac(session.hash, session.key, hashed, nonceTpm, nonce, attributes)
      if (!equalSecrets(expected, mac))
        throw new RangeError('the response is not by the TPM of the session, or was altered')
      session.nonceTpm = nonceTpm
      parameters = cryptFirst(decryptCfb, session, [nonceTpm, nonce], parameters)
    }
    if (response.left > 0) throw new RangeError('bytes follow the authorizations of the response')
    return new Reader(parameters)
  }
}

function encryptFirst(command: AuthorizedCommand, nonces: readonly Uint8Array[]): Uint8Array {
  const at = command.authorizations.findIndex(({ kind }) => kind === 'policy')
  const authorization = command.authorizations[at]
  if (authorization?.kind !== 'policy') return command.parameters
  const { session } = authorization
  const order = [nonces[at] ?? none, session.nonceTpm] as const
  return cryptFirst(encryptCfb, session, order, command.parameters)
}

/** Encrypts or decrypts the content of the TPM2B that `parameters` begin with (Part 1 §21.3). */
function cryptFirst(
  crypt: typeof encryptCfb,
  session: PolicySession,
  [newer, older]: readonly [Uint8Array, Uint8Array],
  parameters: Uint8Array,
): Uint8Array {
  const context = { label: 'CFB', u: newer, v: older }
  const derived = kdfa(session.hash, session.key, context, aesBits + 128)
  const reader = new Reader(parameters)
  const first = reader.sized()
  const key = derived.subarray(0, aesBits / 8)
  return concatBytes(sized(crypt(key, derived.subarray(aesBits / 8), first)), reader.rest())
}

const authorizationArea = (handle: number, nonce: Uint8Array, secret: Uint8Array): Uint8Array =>
  concatBytes(u32(handle), sized(nonce), u8(sessionAttribute.continueSession), sized(secret))
