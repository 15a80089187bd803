import type { SpiffeId } from '#spiffe/spiffe-id.ts'

/** How far a bundle has come. */
export interface Survey {
  /** Nodes that are there now: attested, not banned, and connected or heard of lately. */
  readonly live: number
  /** Of these, the ones that do not have it yet. */
  readonly lacking: readonly SpiffeId[]
  /** Nodes with a valid SVID that are not there now, so that nobody waits for them. */
  readonly away: number
}

/** Who holds SVIDs that one X.509 authority signed. */
export interface Dependents {
  /** Nodes that hold some, workloads' or their own. */
  readonly nodes: readonly SpiffeId[]
  /** How many these are together. */
  readonly svids: number
  /** Nodes that may hold some: nothing was heard of them since the server started. */
  readonly unknown: readonly SpiffeId[]
  /** Whether the server itself still shows one. */
  readonly server: boolean
}

/** What the rest of the trust domain holds, as far as the server knows. Everything is answered from memory. */
export interface Holders {
  /** Which live nodes have been told of the bundle with this sequence number, or a later one, and all they serve. */
  survey(sequenceNumber: bigint): Survey
  /** `sinceSeconds`: when the authority was made, Unix time. */
  dependents(authority: { readonly authorityId: string; readonly sinceSeconds: number }): Dependents
  /** Calls back after each change, often. It must not throw. */
  onChange(listener: () => void): Disposable
}

/** For a trust domain that has no nodes yet. */
export const nobody: Holders = {
  survey: () => ({ live: 0, lacking: [], away: 0 }),
  dependents: () => ({ nodes: [], svids: 0, unknown: [], server: false }),
  onChange: () => ({ [Symbol.dispose]() {} }),
}
