import { Buffer } from 'node:buffer'
import { utf8Text } from '#base/bytes.ts'
import type { HsmKeyType } from '../key-type.ts'
import { type Attribute, type Cryptoki, ck, type Handle } from './cryptoki.ts'
import { attributeFault, guardingAttributes, guardsOf } from './key-template.ts'
import { readPublicKey } from './public-key.ts'

/** A pair whose halves belong together and whose private half is guarded as it must be. */
export interface FoundKey {
  readonly label: string
  /** The private half. */
  readonly handle: Handle
  readonly type: HsmKeyType
  readonly spki: Uint8Array
  /** CKA_ID. */
  readonly id: Uint8Array
  /** What guards the private half, by name. */
  readonly attributes: Readonly<Record<string, boolean>>
}

/** What stands under a label of ours without being a usable pair. */
export interface RefusedObject {
  readonly label: string
  readonly why: string
}

/** Objects on a token: every one of a label, or those that have the CKA_ID besides. */
interface Labelled {
  readonly label: string
  readonly id?: Uint8Array | undefined
}

/** More private keys than any signer should share a token with. */
const maxObjects = 10_000

/**
 * Finds keys by label, and their halves by CKA_ID: exactly one private half for one public half. Two pairs of one
 * label are two keys; which of them is meant is for whoever knows the public key to say.
 */
export class KeyFinder {
  readonly #cryptoki: Cryptoki
  readonly #isOurs: (label: string) => boolean

  constructor(cryptoki: Cryptoki, isOurs: (label: string) => boolean) {
    this.#cryptoki = cryptoki
    this.#isOurs = isOurs
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
        if (label !== undefined && this.#isOurs(label)) labels.add(label)
      }
    }
    const found: FoundKey[] = []
    const refused: RefusedObject[] = []
    for (const label of labels) {
      for (const key of this.#pairs(session, { label })) {
        if ('spki' in key) found.push(key)
        else refused.push(key)
      }
    }
    return { found, refused }
  }

  /** The pair of that label and CKA_ID, or why there is none to use. */
  one(
    session: Handle,
    which: { readonly label: string; readonly id: Uint8Array },
  ): FoundKey | RefusedObject {
    const { label } = which
    return this.#pairs(session, which)[0] ?? { label, why: 'nothing has this label and CKA_ID' }
  }

  /** What stands under a label, matched by CKA_ID. */
  #pairs(session: Handle, which: Labelled): (FoundKey | RefusedObject)[] {
    const { label } = which
    const byId = new Map<string, { privateKeys: Handle[]; publicKeys: Handle[] }>()
    for (const [half, keyClass] of [
      ['privateKeys', ck.CKO_PRIVATE_KEY],
      ['publicKeys', ck.CKO_PUBLIC_KEY],
    ] as const) {
      for (const object of this.objects(session, which, keyClass)) {
        const [id] = this.#cryptoki.attributes(session, object, [ck.CKA_ID])
        const name = id?.toHex() ?? ''
        const halves = byId.get(name) ?? { privateKeys: [], publicKeys: [] }
        halves[half].push(object)
        byId.set(name, halves)
      }
    }
    return Array.from(byId, ([id, { privateKeys, publicKeys }]) => {
      const [privateKey, ...morePrivate] = privateKeys
      const [publicKey, ...morePublic] = publicKeys
      if (
        id === '' ||
        privateKey === undefined ||
        publicKey === undefined ||
        morePrivate.length + morePublic.length > 0
      ) {
        const halves = `${privateKeys.length} private and ${publicKeys.length} public keys`
        return { label, why: `${halves} have this label and the CKA_ID ${id || '(none)'}` }
      }
      return this.#pair(session, { label, privateKey, publicKey })
    })
  }

  #pair(
    session: Handle,
    halves: { readonly label: string; readonly privateKey: Handle; readonly publicKey: Handle },
  ): FoundKey | RefusedObject {
    const { label, privateKey, publicKey } = halves
    const [id, ...guards] = this.#cryptoki.attributes(session, privateKey, [
      ck.CKA_ID,
      ...guardingAttributes,
    ])
    const fault = attributeFault(guards)
    if (fault !== undefined) return { label, why: fault }
    try {
      const { type, spki } = readPublicKey(this.#cryptoki, session, publicKey)
      return {
        label,
        handle: privateKey,
        type,
        spki,
        id: new Uint8Array(id ?? []),
        attributes: guardsOf(guards),
      }
    } catch (error) {
      if (error instanceof RangeError) return { label, why: error.message }
      throw error
    }
  }

  /** The permanent objects with exactly that label, and that CKA_ID if one is given, of one class or of any. */
  objects(session: Handle, { label, id }: Labelled, keyClass?: number): Handle[] {
    const template: Attribute[] = [
      { type: ck.CKA_LABEL, value: label },
      { type: ck.CKA_TOKEN, value: true },
      ...(id === undefined ? [] : [{ type: ck.CKA_ID, value: Buffer.from(id) }]),
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
