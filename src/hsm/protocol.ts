import { utf8Bytes, utf8Text } from '#base/bytes.ts'
import type { ErrorCode } from '#base/errors.ts'
import { type HsmKeyType, isHsmKeyType } from './key-type.ts'

/**
 * What the server and the signer say to each other over their one socket. `sign` is binary, being hot;
 * everything else is JSON. The server believes nothing about what comes back: it is produced in the process
 * that runs the vendor's code.
 */
export const frameKind = {
  /** Server → signer, once, first: {@link OpenRequest}. Answered by events only. */
  open: 1,
  /** `ref(4) ‖ digest`. Result: the signature. */
  sign: 2,
  /** {@link GenerateRequest}. Result: {@link KeyDescription}. */
  generate: 3,
  /** {@link DestroyRequest}. Result: empty. */
  destroy: 4,
  /** Empty. Result: empty, when token and sessions answer. */
  probe: 5,
  /** Empty, unanswered: forget everything and open again. */
  reopen: 6,
  /** {@link SealRequest}. Result: the sealed bytes. */
  seal: 7,
  /** {@link SealRequest}. Result: the bytes that were sealed. */
  unseal: 8,
  /** Signer → server: the result of the request with this id. */
  result: 16,
  /** Signer → server: {@link Failure} of the request with this id. */
  failure: 17,
  /** Signer → server, unasked: {@link SignerEvent}. */
  event: 18,
} as const

/** How the signer finds module, token and PIN. */
export interface OpenRequest {
  /** Path of the PKCS#11 shared object. */
  readonly module: string
  readonly tokenLabel: string
  readonly tokenSerial: string | undefined
  readonly tokenModel?: string | undefined
  readonly tokenManufacturer?: string | undefined
  /** File the signer reads the PIN from; the PIN itself never crosses this socket. */
  readonly pinFile: string
  /** Whether systemd guards `pinFile`, so that its mode bits need not. */
  readonly pinIsCredential: boolean
  /** An operator has asked to try the PIN although a wrong one would lock the token. */
  readonly spendFinalTry: boolean
  /** Only objects whose label begins so are ours. */
  readonly labelPrefix: string
  /** How many sessions sign side by side, 1 to 64. */
  readonly sessions: number
}

/** A key pair to be made. */
export interface GenerateRequest {
  readonly label: string
  readonly type: HsmKeyType
}

/** A key pair, or what there is of one, to be destroyed. */
export interface DestroyRequest {
  readonly label: string
  /** CKA_ID. Undefined: whatever has the label. */
  readonly id?: Uint8Array | undefined
}

/** Something to be encrypted or decrypted with a secret key of the token. */
export interface SealRequest {
  readonly label: string
  /** What it is bound to. */
  readonly context: Uint8Array
  readonly data: Uint8Array
}

/** A key on the token that passed every check. */
export interface KeyDescription {
  /** Names the key in `sign`. Valid until the next `recovering` event; never reused by the same process. */
  readonly ref: number
  readonly label: string
  readonly type: HsmKeyType
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** CKA_ID of both halves. */
  readonly id: Uint8Array
  /** What guards the private half, by name (`CKA_EXTRACTABLE`), as read from the token. */
  readonly attributes: Readonly<Record<string, boolean>>
}

/** Something under our prefix that will not be used, and why. */
export interface RefusedKey {
  readonly label: string
  readonly why: string
}

/** Why a request failed. The message is safe to show. */
export interface Failure {
  readonly code: ErrorCode
  readonly message: string
}

/** What the signer tells about itself. */
export type SignerEvent =
  | {
      readonly state: 'ready'
      readonly token: { readonly label: string; readonly serial: string; readonly model: string }
      readonly keys: readonly KeyDescription[]
      readonly refused: readonly RefusedKey[]
    }
  /** The sessions are gone; every `ref` is void; opening again has begun. */
  | { readonly state: 'recovering'; readonly detail: string }
  /** Opening failed and will be tried again within about a second, though an operator may have to act first. */
  | { readonly state: 'absent'; readonly detail: string; readonly needsOperator: boolean }
  /**
   * The PIN is about to be sent: what becomes of the process now may have cost a try. `pinVersion` tells the file it is
   * from, as it is, from one that was written later.
   */
  | { readonly state: 'logging-in'; readonly pinVersion: string }
  /** The PIN was refused, or would lock the token if it were wrong and was not sent. The process ends now. */
  | { readonly state: 'refused'; readonly detail: string; readonly wasSent: boolean }

/** The JSON encoding of any message but `sign`. */
export function encodeMessage(message: object): Uint8Array {
  return utf8Bytes(
    JSON.stringify(message, (_, value: unknown) =>
      value instanceof Uint8Array ? value.toBase64() : value,
    ),
  )
}

/** @throws SyntaxError when `body` is not the JSON of one {@link OpenRequest}. */
export function parseOpenRequest(body: Uint8Array): OpenRequest {
  const fields = parseObject(body)
  return {
    module: text(fields, 'module'),
    tokenLabel: text(fields, 'tokenLabel'),
    tokenSerial: optionalText(fields, 'tokenSerial'),
    tokenModel: optionalText(fields, 'tokenModel'),
    tokenManufacturer: optionalText(fields, 'tokenManufacturer'),
    pinFile: text(fields, 'pinFile'),
    pinIsCredential: flag(fields, 'pinIsCredential'),
    spendFinalTry: flag(fields, 'spendFinalTry'),
    labelPrefix: text(fields, 'labelPrefix'),
    sessions: integer(fields, 'sessions'),
  }
}

/** @throws SyntaxError when `body` is not the JSON of one {@link GenerateRequest}. */
export function parseGenerateRequest(body: Uint8Array): GenerateRequest {
  const fields = parseObject(body)
  return { label: text(fields, 'label'), type: keyType(fields) }
}

/** @throws SyntaxError when `body` is not the JSON of one {@link DestroyRequest}. */
export function parseDestroyRequest(body: Uint8Array): DestroyRequest {
  const fields = parseObject(body)
  const id = optionalText(fields, 'id')
  return { label: text(fields, 'label'), id: id === undefined ? id : Uint8Array.fromBase64(id) }
}

/** A Buffer would become something else in JSON. */
export const encodeSealRequest = ({ label, context, data }: SealRequest): Uint8Array =>
  encodeMessage({ label, context: Uint8Array.from(context), data: Uint8Array.from(data) })

/** Most bytes that are sealed at once. */
const maxSealedBytes = 4096

/** @throws SyntaxError when `body` is not the JSON of one {@link SealRequest}. */
export function parseSealRequest(body: Uint8Array): SealRequest {
  const fields = parseObject(body)
  const data = Uint8Array.fromBase64(text(fields, 'data'))
  if (data.length > maxSealedBytes) throw new SyntaxError(`more than ${maxSealedBytes} bytes`)
  return {
    label: text(fields, 'label'),
    context: Uint8Array.fromBase64(text(fields, 'context')),
    data,
  }
}

/** @throws SyntaxError when `body` is not the JSON of one {@link KeyDescription}. */
export function parseKeyDescription(body: Uint8Array): KeyDescription {
  return keyDescription(parseObject(body))
}

const failureCodes = [
  'unavailable',
  'already-exists',
  'invalid-argument',
  'failed-precondition',
  'unimplemented',
  'internal',
]

/** @throws SyntaxError when `body` is not the JSON of one {@link Failure}. */
export function parseFailure(body: Uint8Array): Failure {
  const fields = parseObject(body)
  const code = text(fields, 'code')
  if (!failureCodes.includes(code)) throw new SyntaxError(`unknown failure code ${code}`)
  return { code: code as ErrorCode, message: text(fields, 'message') }
}

/** @throws SyntaxError when `body` is not the JSON of one {@link SignerEvent}. */
export function parseSignerEvent(body: Uint8Array): SignerEvent {
  const fields = parseObject(body)
  const state = text(fields, 'state')
  switch (state) {
    case 'ready': {
      const token = child(fields, 'token')
      return {
        state,
        token: {
          label: text(token, 'label'),
          serial: text(token, 'serial'),
          model: text(token, 'model'),
        },
        keys: list(fields, 'keys').map((key) => keyDescription(object(key))),
        refused: list(fields, 'refused').map((key) => {
          const refused = object(key)
          return { label: text(refused, 'label'), why: text(refused, 'why') }
        }),
      }
    }
    case 'absent':
      return {
        state,
        detail: text(fields, 'detail'),
        needsOperator: fields['needsOperator'] === true,
      }
    case 'recovering':
      return { state, detail: text(fields, 'detail') }
    case 'logging-in':
      return { state, pinVersion: text(fields, 'pinVersion') }
    case 'refused':
      return { state, detail: text(fields, 'detail'), wasSent: fields['wasSent'] === true }
    default:
      throw new SyntaxError(`unknown signer state ${state}`)
  }
}

type Fields = Readonly<Record<string, unknown>>

function parseObject(body: Uint8Array): Fields {
  return object(JSON.parse(utf8Text(body)))
}

function object(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SyntaxError('signer message is not an object')
  }
  return value as Fields
}

function text(fields: Fields, name: string): string {
  const value = fields[name]
  if (typeof value !== 'string') throw new SyntaxError(`signer message lacks text ${name}`)
  return value
}

function optionalText(fields: Fields, name: string): string | undefined {
  return fields[name] === undefined ? undefined : text(fields, name)
}

function flag(fields: Fields, name: string): boolean {
  return fields[name] === true
}

function flags(fields: Fields): Readonly<Record<string, boolean>> {
  return Object.fromEntries(Object.keys(fields).map((name) => [name, flag(fields, name)]))
}

function child(fields: Fields, name: string): Fields {
  return object(fields[name])
}

function integer(fields: Fields, name: string): number {
  const value = fields[name]
  if (!Number.isSafeInteger(value)) throw new SyntaxError(`signer message lacks integer ${name}`)
  return value as number
}

function list(fields: Fields, name: string): readonly unknown[] {
  const value = fields[name]
  if (!Array.isArray(value)) throw new SyntaxError(`signer message lacks list ${name}`)
  return value
}

function keyType(fields: Fields): HsmKeyType {
  const type = text(fields, 'type')
  if (!isHsmKeyType(type)) throw new SyntaxError(`unknown key type ${type}`)
  return type
}

function keyDescription(fields: Fields): KeyDescription {
  return {
    ref: integer(fields, 'ref'),
    label: text(fields, 'label'),
    type: keyType(fields),
    publicKey: Uint8Array.fromBase64(text(fields, 'publicKey')),
    id: Uint8Array.fromBase64(text(fields, 'id')),
    attributes: flags(child(fields, 'attributes')),
  }
}
