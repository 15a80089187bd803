import type { KeyObject } from 'node:crypto'
import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'

/** The kinds of signing key there are, by SPIRE's names. */
export type KeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048' | 'rsa-3072' | 'rsa-4096'

/**
 * A signing key whose private half stays where it was made.
 *
 * Every key signs with one scheme, given by its type: ECDSA with SHA-256 (P-256) or SHA-384 (P-384),
 * RSASSA-PKCS1-v1_5 with SHA-256 (RSA). As JWS algorithms: ES256, ES384, RS256.
 */
export interface SigningKey {
  /** The name it was generated under. */
  readonly id: string
  readonly type: KeyType
  readonly publicKey: KeyObject
  /**
   * Hashes and signs `message`, and has verified the signature with {@link publicKey} before it returns.
   * The caller may reuse `message` at once.
   * ECDSA signatures are `r ‖ s`, each padded to the field size (as JWS wants it, RFC 7518 §3.4).
   *
   * @throws AssayError `unavailable` when the key cannot be used now; the caller may try again later.
   */
  sign(message: Uint8Array): Promise<Uint8Array>
  /** The post-quantum key that was made beside it, lives as long, and is used with it; undefined: there is none. */
  readonly alternative?: AlternativeKey | undefined
}

/** An ML-DSA key (FIPS 204) beside a classical one. */
export interface AlternativeKey {
  readonly parameterSet: MlDsaParameterSet
  /** SubjectPublicKeyInfo, DER (RFC 9881). */
  readonly publicKey: Uint8Array
  /**
   * Signs `message` with an empty context, and has verified the signature before it returns. The event loop is free
   * meanwhile.
   *
   * @throws AssayError `unavailable` when the key cannot be used now; the caller may try again later.
   */
  sign(message: Uint8Array): Promise<Uint8Array>
}

/** Whether signing works, in one word, and why not. */
export interface KeyManagerStatus {
  /** `refused`: the PIN was wrong; nothing is tried again until an operator says so. */
  readonly state: 'ok' | 'degraded' | 'down' | 'refused'
  /** For people. Empty when `ok`. */
  readonly detail: string
  /** Where the keys are: `memory`, `disk /path`, `pkcs11 token "assay" serial 1234…`. */
  readonly where: string
  /** Where the post-quantum keys are, and what seals them; undefined: there are none. */
  readonly alternativeWhere?: string
}

/** Where a key is, as far as that may have trouble of its own. */
export interface KeyPlace {
  /** As in {@link KeyManagerStatus}. */
  readonly where: string
  /** Whether the key signs now. */
  readonly isUp: boolean
  /** It has not for so long that another key is to sign in its stead. */
  readonly isGivenUp: boolean
  /** There is another place, which would take a key now. */
  readonly hasOther: boolean
}

/** What one HSM has done since its key manager was opened, for metrics. */
export interface HsmActivity {
  /** Label of the token, from the configuration. */
  readonly token: string
  /** Whether it signs now. */
  readonly isUp: boolean
  /** Unix time of the last change of its state, in seconds. */
  readonly changedAtSeconds: number
  /** Signatures released. */
  readonly signatures: number
  /** Signatures that did not verify, and were not released. */
  readonly wrongSignatures: number
  /** Signer processes started. */
  readonly signerStarts: number
  /** Times the token was opened anew after it had been open. */
  readonly recoveries: number
  /** Signatures that are being waited for. */
  readonly inFlight: number
}

/**
 * Makes and holds signing keys. Keys survive a restart, except with `memory`. Implementations pass
 * `test/contract/key-manager.ts`.
 */
export interface KeyManager extends AsyncDisposable {
  /**
   * Makes a key under a new name, durably before it returns; in another place than the key `apartFrom` where there
   * are two, and the other one can.
   *
   * @throws AssayError `already-exists` when there is a key of that name: it is never replaced.
   * @throws AssayError `unavailable` when no key can be made now. When an HSM is lost in the middle the key
   * may have been made all the same; it is then in {@link keys} once the HSM is back.
   */
  generateKey(id: string, type: KeyType, apartFrom?: string): Promise<SigningKey>
  /** The key of that name, or undefined. Never talks to a device: keys are known since it was last opened. */
  key(id: string): SigningKey | undefined
  /** Every key that is ours, by name. */
  keys(): readonly SigningKey[]
  /** Destroys a key for ever. A name that is not there is not an error. */
  destroyKey(id: string): Promise<void>
  /**
   * Ends the state `refused`: the PIN is tried again, once. Does nothing in any other state. Absent where
   * nothing can be refused.
   *
   * @throws AssayError `failed-precondition` when it is refused again; `unavailable` when it could not be
   * tried yet.
   */
  resume?(): Promise<void>
  status(): KeyManagerStatus
  /**
   * Where the key of that name is, or may be: a token that was never open since the start is not known to lack it.
   * Undefined when it is nowhere. Absent where keys have no trouble of their own.
   */
  place?(id: string): KeyPlace | undefined
  /** One for each HSM there is. Absent where there is none. */
  activity?(): readonly HsmActivity[]
  /** Encrypts what is kept outside with a key that never leaves the HSM. Absent where there is none. */
  readonly sealer?: Sealer
  /** Calls back at each change of {@link status}. */
  onStatus(listener: (status: KeyManagerStatus) => void): Disposable
}

/** Encrypts what is kept outside an HSM with a key that never leaves it. */
export interface Sealer {
  /** For people: `pkcs11 token "assay" serial 1234…`. */
  readonly where: string
  /**
   * `name` is bound to the sealed bytes: they open under no other.
   *
   * @throws AssayError `unimplemented` when this HSM cannot; `unavailable` when it cannot now.
   */
  seal(name: string, secret: Uint8Array): Promise<Uint8Array>
  /**
   * @throws AssayError `failed-precondition` when they were sealed by another key, under another name, or changed;
   * `unavailable` when it cannot be tried now.
   */
  unseal(name: string, sealed: Uint8Array): Promise<Uint8Array>
}
