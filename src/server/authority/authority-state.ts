import type { Bundle } from '#spiffe/bundle.ts'
import type { KeyType } from '../plugin/key-manager/key-manager.ts'
import type { AuthorityKind } from './authority-kind.ts'
import type { AuthorityRecords } from './authority-records.ts'
import type { AuthorityKindName, IssuedRecord, UpstreamChain } from './journal.ts'
import { activateAtSeconds, keepExpiredSeconds } from './slot.ts'

/** An authority of this server, for people and for metrics. */
export interface AuthorityState {
  readonly kind: AuthorityKindName
  readonly state: 'prepared' | 'active' | 'old'
  /** X.509: the subject key identifier, lower-case hex. JWT: the `kid`. */
  readonly authorityId: string
  /** The id of what the bundle has for it: its own, or that of the upstream's root. */
  readonly publishedId: string
  /** The name of its key in the key manager. */
  readonly keyId: string
  /** DER. X.509: the certificate. JWT: SubjectPublicKeyInfo. */
  readonly content: Uint8Array
  /** Of an X.509 authority that another CA has certified. */
  readonly upstream?: UpstreamChain
  /** Unix time. */
  readonly issuedAtSeconds: number
  /** Unix time. */
  readonly expiresAtSeconds: number
  readonly tainted: boolean
  readonly keyType: KeyType
  /** Unix time at which the last of what it signed expires. Zero: it has signed nothing. */
  readonly signedUntilSeconds: number
  /** The same of X.509-SVIDs minted for operators, and of CAs of downstream servers. Zero: there is none. */
  readonly mintedUntilSeconds: number
  readonly nextEvent: 'activates' | 'is replaced' | 'leaves the bundle' | 'is forgotten'
  /** Unix time of `nextEvent`. */
  readonly nextEventAtSeconds: number
}

/** The authorities of one kind that are prepared, active or old, in the order in which they were begun. */
export function authorityStates(
  records: AuthorityRecords,
  { kind, bundle }: { readonly kind: AuthorityKind; readonly bundle: Bundle },
): readonly AuthorityState[] {
  const published = kind.published(bundle)
  return records.all
    .filter((record) => record.state !== 'preparing')
    .map((record) => ({
      kind: kind.name,
      state: record.state,
      keyId: record.keyId,
      keyType: record.keyType,
      signedUntilSeconds: records.signedUntilSeconds(record),
      mintedUntilSeconds: record.mintedUntilSeconds ?? 0,
      ...record.issued,
      publishedId: kind.publishedId(record.issued),
      tainted: published.some(
        ({ authorityId, tainted }) => tainted && authorityId === kind.publishedId(record.issued),
      ),
      ...nextEvent(record, records.active ?? record),
    }))
}

function nextEvent(
  { state, issued }: IssuedRecord,
  active: IssuedRecord,
): Pick<AuthorityState, 'nextEvent' | 'nextEventAtSeconds'> {
  switch (state) {
    case 'prepared':
      return { nextEvent: 'activates', nextEventAtSeconds: activateAtSeconds(active.issued) }
    case 'active':
      return { nextEvent: 'is replaced', nextEventAtSeconds: activateAtSeconds(issued) }
    case 'old':
      return {
        nextEvent: issued.upstream === undefined ? 'leaves the bundle' : 'is forgotten',
        nextEventAtSeconds: issued.expiresAtSeconds + keepExpiredSeconds,
      }
  }
}
