import { concatBytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { type Cryptoki, ck, cryptokiCode, type Handle } from './cryptoki.ts'
import { attributeFault, guardingAttributes, sealingKeyTemplate } from './key-template.ts'

const ivBytes = 12

/**
 * The one secret key on the token that seals what is kept outside of it: AES-256, not extractable, found by its label.
 * What it seals is `iv(12) ‖ ciphertext ‖ tag(16)`, AES-GCM.
 */
export class SealingKey {
  readonly #cryptoki: Cryptoki
  readonly #random: Random

  constructor(cryptoki: Cryptoki, random: Random) {
    this.#cryptoki = cryptoki
    this.#random = random
  }

  /**
   * Makes the key when it is not there. `session` is one that may write.
   *
   * @throws AssayError `unimplemented` when the module has no such mechanism.
   */
  async seal(
    session: Handle,
    of: { readonly label: string; readonly context: Uint8Array; readonly data: Uint8Array },
  ): Promise<Uint8Array> {
    try {
      const key = this.#find(session, of.label) ?? (await this.#make(session, of.label))
      const iv = this.#random.bytes(ivBytes)
      const { context, data } = of
      return concatBytes(iv, await this.#cryptoki.encrypt(session, key, { iv, context, data }))
    } catch (error) {
      if (!isUnsupported(error)) throw error
      const why = 'the token does not do AES-GCM with a key of its own'
      throw new AssayError('unimplemented', `cannot seal: ${why}`, { cause: error })
    }
  }

  /** @throws AssayError `failed-precondition` when there is no such key, or it did not seal this for this context. */
  async unseal(
    session: Handle,
    of: { readonly label: string; readonly context: Uint8Array; readonly data: Uint8Array },
  ): Promise<Uint8Array> {
    const refuse = (why: string, cause?: unknown): AssayError =>
      new AssayError('failed-precondition', `cannot unseal: ${why}`, { cause })
    const key = this.#find(session, of.label)
    if (key === undefined) throw refuse(`the token has no key ${of.label}`)
    const iv = of.data.subarray(0, ivBytes)
    if (of.data.length <= ivBytes) throw refuse('it is too short')
    try {
      return await this.#cryptoki.decrypt(session, key, {
        iv,
        context: of.context,
        data: of.data.subarray(ivBytes),
      })
    } catch (error) {
      // Modules say it in any way they like, and some as if the token were lost: it is asked.
      if (cryptokiCode(error) === undefined || !this.#answers(session)) throw error
      throw refuse('another token sealed it, or it was changed', error)
    }
  }

  #answers(session: Handle): boolean {
    try {
      return this.#cryptoki.isLoggedIn(session)
    } catch {
      return false
    }
  }

  /** @throws AssayError `failed-precondition` when it is not guarded as it must be, or is there twice. */
  #find(session: Handle, label: string): Handle | undefined {
    const template = [
      { type: ck.CKA_CLASS, value: ck.CKO_SECRET_KEY },
      { type: ck.CKA_TOKEN, value: true },
      { type: ck.CKA_LABEL, value: label },
    ]
    const [key, second] = this.#cryptoki.find(session, template, 2)
    if (key === undefined) return undefined
    const fault =
      second === undefined
        ? attributeFault(this.#cryptoki.attributes(session, key, guardingAttributes))
        : 'it is there twice'
    if (fault === undefined) return key
    throw new AssayError('failed-precondition', `cannot use the sealing key ${label}: ${fault}`)
  }

  #make(session: Handle, label: string): Promise<Handle> {
    return this.#cryptoki.generateSecretKey(session, ck.CKM_AES_KEY_GEN, sealingKeyTemplate(label))
  }
}

const unsupported: ReadonlySet<number> = new Set([
  ck.CKR_MECHANISM_INVALID,
  ck.CKR_MECHANISM_PARAM_INVALID,
  ck.CKR_FUNCTION_NOT_SUPPORTED,
])

const isUnsupported = (error: unknown): boolean => {
  const code = cryptokiCode(error)
  return code !== undefined && unsupported.has(code)
}
