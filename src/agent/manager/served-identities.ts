import type { Bundle } from '#spiffe/bundle.ts'
import type { Selector } from '#spiffe/selector.ts'
import type { AgentEntry } from './agent-entry.ts'
import type { Delivery, Reader, Verifies } from './deliveries.ts'
import type { Entitlement } from './entitlements.ts'
import type { JwtSvid } from './jwt-svid-cache.ts'
import type { X509View } from './x509-view.ts'

/** Identities as they are served to workloads: classical ones, or post-quantum ones. */
export interface ServedIdentities {
  /** Whether the server has ever told the whole state. */
  readonly isSynchronized: boolean
  /** Of the own trust domain, with its post-quantum part. Undefined until the server has told it. */
  readonly ownBundle: Bundle | undefined
  /** What the holder of `selectors` (sorted, without repetition) is entitled to, now and as it changes. */
  entitlementOf(selectors: readonly Selector[]): Entitlement
  /** Those of its entries that there are identities of this kind for, by id. */
  entriesOf(entitlement: Entitlement): readonly AgentEntry[]
  /** A stream is open, until what it returns is disposed of. */
  deliver(verifies: Verifies, reader: Reader | undefined): Delivery
  /** Marks the X.509-SVIDs of an entitlement as used now, and has those that are missing signed. */
  want(entitlement: Entitlement): void
  /** {@link want}, and waits until nothing is pending. */
  settled(entitlement: Entitlement, signal: AbortSignal): Promise<void>
  x509View(entitlement: Entitlement): X509View
  /** A JWT-SVID of `entry`. @throws AssayError `unavailable` when there is none to be had. */
  jwtSvid(entry: AgentEntry, audience: readonly string[], signal: AbortSignal): Promise<JwtSvid>
  /** The federated bundles that `entries` ask for and the agent has, by trust domain. */
  federatedOf(entries: readonly AgentEntry[]): readonly Bundle[]
}
