import type { RegistrationEntry } from '#spiffe/registration-entry.ts'

/**
 * What an agent needs to know of a registration entry. The server alone applies the rest when it signs;
 * SPIRE's server does not even send it.
 */
export type AgentEntry = Pick<
  RegistrationEntry,
  | 'id'
  | 'spiffeId'
  | 'selectors'
  | 'federatesWith'
  | 'admin'
  | 'downstream'
  | 'storeSvid'
  | 'hint'
  | 'revisionNumber'
  | 'createdAtSeconds'
  | 'disableX509SvidPrefetch'
  | 'jwtSvidIncludeJti'
>

/** Whether two readings of an entry are the same revision of it. */
export function isSameRevision(a: AgentEntry, b: AgentEntry): boolean {
  return a.revisionNumber === b.revisionNumber && a.createdAtSeconds === b.createdAtSeconds
}

/** The order in which identities are given to workloads; the first is a workload's default identity. */
export function byEntryId(a: { readonly id: string }, b: { readonly id: string }): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0
}
