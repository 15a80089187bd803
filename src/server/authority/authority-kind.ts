import type { Bundle } from '#spiffe/bundle.ts'
import type { KeyType, SigningKey } from '../plugin/key-manager/key-manager.ts'
import type { AuthorityKindName, IssuedAuthority } from './journal.ts'

/** An authority as a bundle shows it. */
export interface PublishedAuthority {
  readonly authorityId: string
  /** Unix time. Zero: not stated. */
  readonly expiresAtSeconds: number
  readonly tainted: boolean
}

/**
 * What differs between X.509 and JWT authorities; how they are rotated does not. Bundles are values: every
 * `with…` returns a new one, or the same one when there is nothing to change.
 */
export interface AuthorityKind {
  readonly name: AuthorityKindName
  /** For messages: `X.509 authority`. */
  readonly title: string
  /** Keys are named `<prefix>/<slot>/<yyyymmddThhmmssZ>`. */
  readonly keyPrefix: string
  /** Of keys to come. */
  readonly keyType: KeyType
  /** Makes the authority for a key. Needs the key for a self-signed certificate. */
  issue(key: SigningKey, nowSeconds: number): Promise<IssuedAuthority>
  /** Whether `issued` is an authority of this trust domain for this very key. */
  fits(issued: IssuedAuthority, key: SigningKey): boolean
  /** Whether it was made as the configuration no longer wants them: its successor need not wait for its end. */
  isOutdated(issued: IssuedAuthority): boolean
  /** Whether one that is made now would last longer than `issued`. */
  wouldOutlast(issued: IssuedAuthority): boolean
  /** The id of what `bundle` has for it: its own, or, where another CA has certified it, that of its root. */
  publishedId(issued: IssuedAuthority): string
  /** What `bundle` has of this kind. */
  published(bundle: Bundle): readonly PublishedAuthority[]
  withAuthority(bundle: Bundle, issued: IssuedAuthority): Bundle
  withTaint(bundle: Bundle, authorityId: string): Bundle
  /** Without every authority that `isGone` says so of. */
  without(bundle: Bundle, isGone: (authority: PublishedAuthority) => boolean): Bundle
}
