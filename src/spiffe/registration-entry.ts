import type { Selector } from './selector.ts'
import type { SpiffeId } from './spiffe-id.ts'
import type { TrustDomain } from './trust-domain.ts'

/**
 * Who gets an identity: a workload that shows `selectors` below the agent or identity `parentId` gets
 * `spiffeId`. The fields are those of `spire.api.types.Entry`; zero, empty and false mean "not set".
 */
export interface RegistrationEntry {
  /** Unique in the trust domain: 1 to 255 characters of `-.0-9A-Z_a-z`. */
  readonly id: string
  readonly spiffeId: SpiffeId
  readonly parentId: SpiffeId
  /** Sorted, without repetition, at least one. */
  readonly selectors: readonly Selector[]
  /** Zero: the server's default. */
  readonly x509SvidTtlSeconds: number
  /** Zero: the server's default. */
  readonly jwtSvidTtlSeconds: number
  readonly federatesWith: readonly TrustDomain[]
  readonly dnsNames: readonly string[]
  readonly admin: boolean
  readonly downstream: boolean
  readonly storeSvid: boolean
  /** At most 1024 bytes. */
  readonly hint: string
  /** Unix time after which the entry is removed. Zero: never. */
  readonly expiresAtSeconds: number
  /** Zero at creation, one more with each update. */
  readonly revisionNumber: number
  readonly createdAtSeconds: number
  /** The agent signs no X.509-SVID ahead of the first request. */
  readonly disableX509SvidPrefetch: boolean
  /** JWT-SVIDs carry a fresh `jti` and are never served from a cache. */
  readonly jwtSvidIncludeJti: boolean
}
