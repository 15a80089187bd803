import { equalBytes, utf8Text } from '#base/bytes.ts'
import type { HsmKeyType } from '../key-type.ts'
import { type Cryptoki, ck, type Handle } from './cryptoki.ts'
import { attributeFault, guardingAttributes } from './key-template.ts'
import { readPublicKey } from './public-key.ts'

/** A pair whose halves belong together and whose private half is guarded as it must be. */
export interface FoundKey {
  readonly label: string
  /** The private half. */
  readonly handle: Handle
  readonly type: HsmKeyType
  readonly spki: Uint8Array
}

/** What stands under a label of ours without being a usable pair. */
export interface RefusedObject {
  readonly label: string
  readonly why: string
}

/** More private keys than any signer should share a token with. */
const maxObjects = 10_000

/** Finds keys by label and CKA_ID, and accepts exactly one private half for one public half. */
export class KeyFinder {
  readonly #cryptoki: Cryptoki
  readonly #labelPrefix: string

  constructor(cryptoki: Cryptoki, labelPrefix: string) {
    this.#cryptoki = cryptoki
    this.#labelPrefix = labelPrefix
  }

  /** Every label of ours on the token. */
  all(session: Handle): { found: FoundKey[]; refused: RefusedObject[] } {
    const labels = new Set<string>()
    for (const keyClass of [ck.CKO_PRIVATE_KEY, ck.CKO_PUBLIC_KEY]) {
      const template = [
        { type: ck.CKA_CLASS, value: keyClass },
        { type: ck.CKA_TOKEN, value: true },
      ]
      for (const object of this.#cryptoki.find(session, template, maxObjects)) {
        const label = this.#labelOf(session, object)
        if (label?.startsWith(this.#labelPrefix)) labels.add(label)
      }
    }
    const found: FoundKey[] = []
    const refused: RefusedObject[] = []
    for (const label of labels) {
      const key = this.one(session, label)
      if ('spki' in key) found.push(key)
      else refused.push(key)
    }
    return { found, refused }
  }

  /** The pair under that label, or why there is none to use. */
  one(session: Handle, label: string): FoundKey | RefusedObject {
    const privateKeys = this.objects(session, label, ck.CKO_PRIVATE_KEY)
    const publicKeys = this.objects(session, label, ck.CKO_PUBLIC_KEY)
    const [privateKey] = privateKeys
    const [publicKey] = publicKeys
    const refuse = (why: string): RefusedObject => ({ label, why })
    if (
      privateKey === undefined ||
      publicKey === undefined ||
      privateKeys.length + publicKeys.length > 2
    ) {
      return refuse(
        `${privateKeys.length} private and ${publicKeys.length} public keys have this label`,
      )
    }
    const [privateId, ...guards] = this.#cryptoki.attributes(session, privateKey, [
      ck.CKA_ID,
      ...guardingAttributes,
    ])
    const [publicId] = this.#cryptoki.attributes(session, publicKey, [ck.CKA_ID])
    if (!privateId?.length || !publicId?.length || !equalBytes(privateId, publicId)) {
      return refuse('CKA_ID of the private and the public key differ')
    }
    const fault = attributeFault(guards)
    if (fault !== undefined) return refuse(fault)
    try {
      const { type, spki } = readPublicKey(this.#cryptoki, session, publicKey)
      return { label, handle: privateKey, type, spki }
    } catch (error) {
      if (error instanceof RangeError) return refuse(error.message)
      throw error
    }
  }

  /** The permanent objects with exactly that label, of one class or of any. */
  objects(session: Handle, label: string, keyClass?: number): Handle[] {
    const template = [
      { type: ck.CKA_LABEL, value: label },
      { type: ck.CKA_TOKEN, value: true },
    ]
    if (keyClass === undefined) return this.#cryptoki.find(session, template, maxObjects)
    const ofClass = [...template, { type: ck.CKA_CLASS, value: keyClass }]
    return this.#cryptoki.find(session, ofClass, maxObjects)
  }

  #labelOf(session: Handle, object: Handle): string | undefined {
    const [label] = this.#cryptoki.attributes(session, object, [ck.CKA_LABEL])
    try {
      return label && utf8Text(label)
    } catch {
      return undefined // not text, so not ours
    }
  }
}
