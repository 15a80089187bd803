import { createPublicKey, hash, type KeyObject, verify } from 'node:crypto'
import { equalBytes } from '#base/bytes.ts'
import { type HsmKeyProfile, type HsmKeyType, profileOf } from './key-type.ts'
import type { KeyDescription } from './protocol.ts'

/** A key on the token. The object stays the same however often the token is opened again. */
export interface HsmKey {
  readonly label: string
  readonly type: HsmKeyType
  readonly publicKey: KeyObject
  /** CKA_ID. */
  readonly id: Uint8Array
  /** What guards the private half, by name (`CKA_EXTRACTABLE`), as the token said when the key was first seen. */
  readonly attributes: Readonly<Record<string, boolean>>
}

/** The same, with what is known of it for now: whether it can sign, and what is the matter. */
export class KnownKey implements HsmKey {
  readonly label: string
  readonly type: HsmKeyType
  readonly publicKey: KeyObject
  readonly id: Uint8Array
  readonly attributes: Readonly<Record<string, boolean>>
  /** Set while the key can sign. */
  ref: number | undefined
  /** Set while it could, but has signed wrongly: it is tried again and again, but not for anybody. */
  parkedRef: number | undefined
  /** What is the matter with it, although the token is there. */
  fault: string | undefined
  /** It has signed since the last probe. */
  isProven = false
  wrongInARow = 0
  readonly #profile: HsmKeyProfile
  readonly #spki: Uint8Array
  /** As `crypto.verify` takes it. */
  readonly #verifier: { readonly key: KeyObject; readonly dsaEncoding: 'ieee-p1363' }

  constructor({ label, type, publicKey: spki, id, attributes }: KeyDescription) {
    this.id = id
    this.attributes = attributes
    this.label = label
    this.type = type
    this.#profile = profileOf(type)
    this.#spki = spki
    this.publicKey = createPublicKey({ key: spki as never, format: 'der', type: 'spki' })
    this.#verifier = { key: this.publicKey, dsaEncoding: 'ieee-p1363' }
  }

  /** Whether what the token describes is this very key, and not another one of its label. */
  isSameAs(described: KeyDescription): boolean {
    return equalBytes(described.publicKey, this.#spki)
  }

  /** What the token signs of `message`. */
  digest(message: Uint8Array): Uint8Array {
    return hash(this.#profile.hash, message, 'buffer')
  }

  /** Whether `signature` is one of this key over `message`, by its one scheme. */
  hasSigned(message: Uint8Array, signature: Uint8Array): boolean {
    return (
      signature.length === this.#profile.signatureBytes &&
      verify(this.#profile.hash, message, this.#verifier, signature)
    )
  }

  /** Keeps the key from signing for anybody until a challenge shows that it is right again. */
  park(): void {
    this.parkedRef = this.ref
    this.ref = undefined
  }
}
