import { Buffer } from 'node:buffer'
import { createRequire } from 'node:module'
import type { Attribute, Handle, PKCS11, Pkcs11Error } from 'pkcs11js'
import { pkcs11Login } from '#host/pkcs11-login.ts'

// A CommonJS addon: its names cannot be imported, only required.
const pkcs11 = createRequire(import.meta.url)('pkcs11js') as typeof import('pkcs11js')

/** The constants of PKCS#11 v2.40, by their names there. */
export const ck: Readonly<Omit<typeof pkcs11, 'PKCS11' | 'Pkcs11Error' | 'NativeError'>> = pkcs11

export type { Attribute, Handle }

/** One token as C_GetTokenInfo describes it, padding removed. */
export interface TokenInfo {
  readonly slot: Handle
  readonly label: string
  readonly serial: string
  readonly model: string
  readonly manufacturer: string
  /** CKF_… */
  readonly flags: number
  /** 0 where the module names no limit. */
  readonly maxSessions: number
}

/** What the async calls work on. pkcs11js keeps raw pointers only, so these must outlive the call. */
const inUse = new Set<Buffer>()

/**
 * One PKCS#11 module, as far as a signer needs it. Only signing, sealing and making keys leave the
 * event loop free while the token works; they use the promise form of pkcs11js, because its callback form
 * reads its arguments after they may have been collected (pkcs11js#121).
 */
export class Cryptoki {
  readonly #path: string
  readonly #module: PKCS11

  /**
   * Loads the shared object at `path`. One process loads one module, once.
   *
   * @throws Error as dlopen words it.
   */
  constructor(path: string) {
    this.#path = path
    this.#module = new pkcs11.PKCS11()
    this.#module.load(path)
  }

  /** Without CKF_OS_LOCKING_OK, signing in two sessions at once is undefined and crashes in practice. */
  initialize(): void {
    this.#module.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK })
  }

  /** No call may be under way. Every session and handle is void afterwards. */
  finalize(): void {
    this.#module.C_Finalize()
  }

  /** The initialised tokens that are present now. */
  tokens(): TokenInfo[] {
    const tokens: TokenInfo[] = []
    for (const slot of this.#module.C_GetSlotList(true)) {
      const info = this.tokenInfo(slot)
      if ((info.flags & pkcs11.CKF_TOKEN_INITIALIZED) !== 0) tokens.push(info)
    }
    return tokens
  }

  tokenInfo(slot: Handle): TokenInfo {
    const info = this.#module.C_GetTokenInfo(slot)
    return {
      slot,
      label: unpad(info.label),
      serial: unpad(info.serialNumber),
      model: unpad(info.model),
      manufacturer: unpad(info.manufacturerID),
      flags: info.flags,
      maxSessions: info.maxSessionCount === 0xffffffff ? 0 : info.maxSessionCount,
    }
  }

  openSession(slot: Handle, access: 'read' | 'write'): Handle {
    const write = access === 'write' ? pkcs11.CKF_RW_SESSION : 0
    return this.#module.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION | write)
  }

  closeSession(session: Handle): void {
    this.#module.C_CloseSession(session)
  }

  /** Whether the session answers and its user is logged in. */
  isLoggedIn(session: Handle): boolean {
    const { state } = this.#module.C_GetSessionInfo(session)
    return state === CKS_RO_USER_FUNCTIONS || state === CKS_RW_USER_FUNCTIONS
  }

  /** Logs the application in, and leaves no copy of the PIN: pkcs11js would make it a string, which cannot be wiped. */
  login(session: Handle, pin: Uint8Array): void {
    const code = pkcs11Login(this.#path, session, pin)
    if (code === pkcs11.CKR_OK || code === pkcs11.CKR_USER_ALREADY_LOGGED_IN) return
    throw new pkcs11.Pkcs11Error(errorName(code), code, 'C_Login')
  }

  /** At most `limit` objects that match `template`. */
  find(session: Handle, template: Attribute[], limit: number): Handle[] {
    this.#module.C_FindObjectsInit(session, template)
    try {
      const found: Handle[] = []
      while (found.length < limit) {
        const some = this.#module.C_FindObjects(session, Math.min(limit - found.length, 256))
        if (some.length === 0) break
        found.push(...some)
      }
      return found
    } finally {
      this.#module.C_FindObjectsFinal(session)
    }
  }

  /** The values of `types`, in order. */
  attributes(session: Handle, object: Handle, types: readonly number[]): Uint8Array[] {
    const template = types.map((type) => ({ type }))
    const values = this.#module.C_GetAttributeValue(session, object, template)
    return values.map(({ value }) => new Uint8Array(value ?? []))
  }

  /** Signs `data` as it is. The session is busy until the promise settles. */
  async sign(session: Handle, key: Handle, operation: SignOperation): Promise<Uint8Array> {
    const input = Buffer.from(operation.data)
    const output = Buffer.alloc(operation.signatureBytes)
    inUse.add(input).add(output)
    try {
      this.#module.C_SignInit(session, { mechanism: operation.mechanism }, key)
      return await this.#module.C_SignAsync(session, input, output)
    } finally {
      inUse.delete(input)
      inUse.delete(output)
    }
  }

  /** The session is busy until the promise settles. */
  generateKeyPair(
    session: Handle,
    mechanism: number,
    templates: { readonly publicKey: Attribute[]; readonly privateKey: Attribute[] },
  ): Promise<{ publicKey: Handle; privateKey: Handle }> {
    const { publicKey, privateKey } = templates
    return this.#module.C_GenerateKeyPairAsync(session, { mechanism }, publicKey, privateKey)
  }

  /** A secret key. The session is busy until the promise settles. */
  generateSecretKey(session: Handle, mechanism: number, template: Attribute[]): Promise<Handle> {
    return this.#module.C_GenerateKeyAsync(session, { mechanism }, template)
  }

  /** AES-GCM with a tag of 16 bytes at the end. The session is busy until the promise settles. */
  async encrypt(session: Handle, key: Handle, operation: GcmOperation): Promise<Uint8Array> {
    const input = Buffer.from(operation.data)
    const output = Buffer.alloc(operation.data.length + gcmTagBytes)
    const parameter = gcmParameter(operation)
    inUse.add(input).add(output).add(parameter.iv).add(parameter.aad)
    try {
      this.#module.C_EncryptInit(session, { mechanism: pkcs11.CKM_AES_GCM, parameter }, key)
      return new Uint8Array(await this.#module.C_EncryptAsync(session, input, output))
    } finally {
      for (const buffer of [input, output, parameter.iv, parameter.aad]) inUse.delete(buffer)
      input.fill(0)
    }
  }

  /** The reverse of {@link encrypt}. The caller clears what it gets. */
  async decrypt(session: Handle, key: Handle, operation: GcmOperation): Promise<Uint8Array> {
    const input = Buffer.from(operation.data)
    const output = Buffer.alloc(operation.data.length)
    const parameter = gcmParameter(operation)
    inUse.add(input).add(output).add(parameter.iv).add(parameter.aad)
    try {
      this.#module.C_DecryptInit(session, { mechanism: pkcs11.CKM_AES_GCM, parameter }, key)
      return Uint8Array.from(await this.#module.C_DecryptAsync(session, input, output))
    } finally {
      for (const buffer of [input, output, parameter.iv, parameter.aad]) inUse.delete(buffer)
      output.fill(0)
    }
  }

  copyObject(session: Handle, object: Handle, template: Attribute[]): Handle {
    return this.#module.C_CopyObject(session, object, template)
  }

  destroyObject(session: Handle, object: Handle): void {
    this.#module.C_DestroyObject(session, object)
  }
}

/** One call of C_Sign. */
export interface SignOperation {
  /** CKM_… */
  readonly mechanism: number
  readonly data: Uint8Array
  readonly signatureBytes: number
}

/** One call of C_Encrypt or C_Decrypt with CKM_AES_GCM. */
export interface GcmOperation {
  /** 12 bytes, never twice with one key. */
  readonly iv: Uint8Array
  /** What the data is bound to. */
  readonly context: Uint8Array
  readonly data: Uint8Array
}

const gcmTagBytes = 16

const gcmParameter = ({ iv, context }: GcmOperation) => ({
  type: pkcs11.CK_PARAMS_AES_GCM,
  iv: Buffer.from(iv),
  aad: Buffer.from(context),
  ivBits: 8 * iv.length,
  tagBits: 8 * gcmTagBytes,
})

/** `CKR_PIN_INCORRECT`, as pkcs11js words it. */
function errorName(code: number): string {
  const names = Object.entries(pkcs11).filter(([, value]) => value === code)
  return names.find(([name]) => name.startsWith('CKR_'))?.[0] ?? 'CKR_VENDOR_DEFINED'
}

/** The CKR_… value `error` carries, or undefined when it is no PKCS#11 error. */
export function cryptokiCode(error: unknown): number | undefined {
  if (error instanceof pkcs11.Pkcs11Error) return (error as Pkcs11Error).code
  // C_CopyObject and C_FindObjects throw what the addon throws, which pkcs11js translates for the others.
  const bare = error instanceof Error ? /^CKR_\w+:(\d+)$/.exec(error.message) : null
  return bare === null ? undefined : Number(bare[1])
}

/**
 * What a failed call says. `pin`: the token refused the PIN, do not try again. `request`: this request was
 * wrong for this token, the next may succeed. `token`: everything else, also what is unknown: sessions and
 * handles can no longer be trusted.
 */
export function failureKind(error: unknown): 'pin' | 'request' | 'token' {
  const code = cryptokiCode(error)
  if (code === undefined) return 'request'
  if (pinCodes.has(code)) return 'pin'
  return requestCodes.has(code) ? 'request' : 'token'
}

const pinCodes: ReadonlySet<number> = new Set([
  pkcs11.CKR_PIN_INCORRECT,
  pkcs11.CKR_PIN_INVALID,
  pkcs11.CKR_PIN_LEN_RANGE,
  pkcs11.CKR_PIN_EXPIRED,
  pkcs11.CKR_PIN_LOCKED,
  pkcs11.CKR_USER_PIN_NOT_INITIALIZED,
])

/** PKCS#11 v2.40 values that pkcs11js's own table lacks. */
const CKS_RO_USER_FUNCTIONS = 1
const CKS_RW_USER_FUNCTIONS = 3
const CKR_ACTION_PROHIBITED = 0x1b
const CKR_CURVE_NOT_SUPPORTED = 0x140

const requestCodes: ReadonlySet<number> = new Set([
  CKR_ACTION_PROHIBITED,
  CKR_CURVE_NOT_SUPPORTED,
  pkcs11.CKR_ARGUMENTS_BAD,
  pkcs11.CKR_ATTRIBUTE_READ_ONLY,
  pkcs11.CKR_ATTRIBUTE_SENSITIVE,
  pkcs11.CKR_ATTRIBUTE_TYPE_INVALID,
  pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
  pkcs11.CKR_BUFFER_TOO_SMALL,
  pkcs11.CKR_DATA_INVALID,
  pkcs11.CKR_DATA_LEN_RANGE,
  pkcs11.CKR_DOMAIN_PARAMS_INVALID,
  pkcs11.CKR_FUNCTION_NOT_SUPPORTED,
  pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED,
  pkcs11.CKR_KEY_SIZE_RANGE,
  pkcs11.CKR_KEY_TYPE_INCONSISTENT,
  pkcs11.CKR_MECHANISM_INVALID,
  pkcs11.CKR_MECHANISM_PARAM_INVALID,
  pkcs11.CKR_SESSION_COUNT,
  pkcs11.CKR_TEMPLATE_INCOMPLETE,
  pkcs11.CKR_TEMPLATE_INCONSISTENT,
  pkcs11.CKR_TOKEN_WRITE_PROTECTED,
])

/** PKCS#11 pads fixed-length texts with blanks, and some modules with NUL. */
function unpad(text: string): string {
  let end = text.length
  while (end > 0 && (text[end - 1] === ' ' || text[end - 1] === '\0')) end--
  return text.slice(0, end)
}
