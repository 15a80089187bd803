import type { AssayError } from '#base/errors.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { AgentEntry } from './agent-entry.ts'

/** An X.509-SVID with its key. */
export interface X509Svid {
  readonly spiffeId: SpiffeId
  /** DER, leaf first. */
  readonly certificates: readonly Uint8Array[]
  /** PKCS#8, DER. */
  readonly privateKey: Uint8Array
  /** Unix time. */
  readonly expiresAtMs: number
  /** The authority of the bundle that the chain ends at, as {@link AuthorityTrust} names it. */
  readonly authorityId: string
}

/** What an authority of the own bundle is worth. */
export type AuthorityTrust = 'trusted' | 'tainted' | 'unknown'

/** Makes keys and has X.509-SVIDs signed for them. */
export interface X509Signer {
  /**
   * One result for each entry, in order; an error in it is the server's refusal of that one entry.
   *
   * @throws when nothing could be signed.
   */
  sign(
    entries: readonly AgentEntry[],
    signal: AbortSignal,
  ): Promise<readonly (X509Svid | AssayError)[]>
}

/** What stands between an entry and its X.509-SVID. */
export type X509SvidState =
  | { readonly state: 'held'; readonly svid: X509Svid }
  /** It is being signed; `isReplacement`: for a workload that has lost one to the revocation of its authority. */
  | { readonly state: 'pending'; readonly isReplacement: boolean }
  /** The server will not sign it. */
  | { readonly state: 'refused'; readonly error: AssayError }
  /** The server could not be asked, or what was held has expired. */
  | { readonly state: 'unavailable'; readonly error: AssayError }
  /** The agent does not hold the entry. */
  | { readonly state: 'unknown' }
