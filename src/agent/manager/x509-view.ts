import type { AssayError } from '#base/errors.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { AgentEntry } from './agent-entry.ts'
import { withUniqueHints } from './hints.ts'
import type { X509Svid, X509SvidState } from './x509-svid.ts'

/** An identity as it is given to a workload. */
export interface HeldIdentity {
  readonly entry: AgentEntry
  readonly svid: X509Svid
}

/** What there is to give to the holder of an entitlement. */
export type X509View =
  /** No entry matches. */
  | { readonly state: 'none' }
  /** Nothing can be given yet, but soon. */
  | { readonly state: 'pending' }
  /** Nothing can be given, and who knows when. */
  | { readonly state: 'unavailable'; readonly error: AssayError }
  | {
      readonly state: 'ready'
      /** In the order of entry ids; at least one, none expired, each of an authority in `bundle`. */
      readonly identities: readonly HeldIdentity[]
      readonly bundle: Bundle
      readonly federated: readonly Bundle[]
    }

/** What there is to give for `entries`, of the SVIDs that `stateOf` knows. */
export function x509View(
  entries: readonly AgentEntry[],
  of: {
    readonly own: Bundle | undefined
    readonly stateOf: (entryId: string) => X509SvidState
    readonly federatedOf: (entries: readonly AgentEntry[]) => readonly Bundle[]
  },
): X509View {
  if (entries.length === 0) return { state: 'none' }
  if (of.own === undefined) return { state: 'pending' }
  const identities: HeldIdentity[] = []
  let error: AssayError | undefined
  for (const entry of withUniqueHints(entries)) {
    const held = of.stateOf(entry.id)
    if (held.state === 'held') identities.push({ entry, svid: held.svid })
    // A workload does not lose an identity for the moment in which it is signed anew.
    else if (held.state === 'pending' && held.isReplacement) return { state: 'pending' }
    else if (held.state === 'refused' || held.state === 'unavailable') error ??= held.error
  }
  if (identities.length > 0) {
    return {
      state: 'ready',
      identities,
      bundle: of.own,
      federated: of.federatedOf(identities.map(({ entry }) => entry)),
    }
  }
  return error === undefined ? { state: 'pending' } : { state: 'unavailable', error }
}
