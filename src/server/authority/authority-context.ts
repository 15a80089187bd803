import type { AuthorityKind, PublishedAuthority } from './authority-kind.ts'
import type { AuthorityRecords } from './authority-records.ts'
import type { AuthorityKindName, IssuedAuthority } from './journal.ts'
import type { OwnBundle } from './own-bundle.ts'

/** Something that has happened to an authority, told after it is durable. */
export interface AuthorityEvent {
  readonly kind: AuthorityKindName
  /**
   * `dropped`: it can never sign again, for instance because its key is lost. `retired`: it is in the bundle no
   * more, and its key is destroyed. `usable`: it can sign, which it could not since this server started.
   * `promoted`: it was activated because the key of the one before it was away for too long.
   */
  readonly what:
    | 'prepared'
    | 'activated'
    | 'promoted'
    | 'dropped'
    | 'tainted'
    | 'revoked'
    | 'retired'
    | 'usable'
  /** As in {@link AuthorityState}. */
  readonly authorityId: string
}

/** What every step on the authorities of one kind works on. */
export interface AuthorityContext {
  readonly kind: AuthorityKind
  readonly records: AuthorityRecords
  readonly bundle: OwnBundle
  /** Must not throw. */
  readonly tell: (what: AuthorityEvent['what'], authorityId: string) => void
}

/** What the own bundle has by that name; undefined: nothing. */
export function publishedAuthority(
  { kind, bundle }: AuthorityContext,
  authorityId: string,
): PublishedAuthority | undefined {
  return kind.published(bundle.present).find((authority) => authority.authorityId === authorityId)
}

/** What the own bundle has for it: itself, or the root that it chains to; undefined: nothing. */
export function publicationOf(
  context: AuthorityContext,
  issued: IssuedAuthority,
): PublishedAuthority | undefined {
  return publishedAuthority(context, context.kind.publishedId(issued))
}
