import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AgentEntry } from './agent-entry.ts'

/** What a server tells an agent: everything there is, or what has changed since the last update. */
export interface Update {
  /** `feed`: a server that tells changes as they happen, and takes reports. `poll`: one that has to be asked. */
  readonly source: 'feed' | 'poll'
  /** Zero: the server has none. */
  readonly revision: bigint
  /** What a complete update does not name is gone. */
  readonly complete: boolean
  /** New and changed ones; of a complete update, all. */
  readonly entries: readonly AgentEntry[]
  readonly removedEntryIds: readonly string[]
  /** The own trust domain's. Always there in a complete update. */
  readonly bundle: Bundle | undefined
  readonly federatedBundles: readonly Bundle[]
  readonly removedFederated: readonly TrustDomain[]
  /** Unix time at the server; undefined: it did not say. */
  readonly serverTimeMs: number | undefined
  /** Over how long agents spread the replacement of what a tainted authority signed; zero: at once. */
  readonly replacementSpreadSeconds: number
}
