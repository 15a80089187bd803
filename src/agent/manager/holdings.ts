import type { X509Svid } from './x509-svid.ts'

/** How much an agent depends on one X.509 authority. */
export interface AuthorityUse {
  /** As {@link X509Svid.authorityId} names it. */
  readonly authorityId: string
  /** How many SVIDs it signed of those that the agent or its workloads have. */
  readonly svids: number
  /** When the last of them expires. Unix time. */
  readonly expiresAtMs: number
}

/** What an agent and its workloads have: by it the server knows when a rotation may go on. */
export interface Holdings {
  /** Sequence number of the own bundle that every one of them has; zero: there is none yet. */
  readonly bundleSequenceNumber: bigint
  /** In the order of their ids. */
  readonly authorities: readonly AuthorityUse[]
  /** When the first X.509-SVID of a workload expires, Unix time; undefined: none is held. */
  readonly firstExpiryMs: number | undefined
  /** When it is to be looked at again although nothing has happened. Unix time; undefined: never. */
  readonly againAtMs: number | undefined
}

/** Whether the server would learn nothing new. */
export function isSameReport(a: Holdings, b: Holdings): boolean {
  return (
    a.bundleSequenceNumber === b.bundleSequenceNumber &&
    a.firstExpiryMs === b.firstExpiryMs &&
    a.authorities.length === b.authorities.length &&
    a.authorities.every((use, i) => {
      const other = b.authorities[i]
      return (
        other !== undefined &&
        use.authorityId === other.authorityId &&
        use.svids === other.svids &&
        use.expiresAtMs === other.expiresAtMs
      )
    })
  )
}

/** The use of each authority, by the name that `nameOf` gives it, by `svids`, each counted once however often it comes. Expired ones are no use. */
export function authorityUses(
  svids: Iterable<Pick<X509Svid, 'authorityId' | 'expiresAtMs'>>,
  { nowMs, nameOf }: { readonly nowMs: number; readonly nameOf: (authorityId: string) => string },
): readonly AuthorityUse[] {
  const uses = new Map<string, { svids: number; expiresAtMs: number }>()
  for (const { authorityId, expiresAtMs } of new Set(svids)) {
    if (expiresAtMs <= nowMs) continue
    const name = nameOf(authorityId)
    const use = uses.get(name) ?? { svids: 0, expiresAtMs: 0 }
    use.svids += 1
    use.expiresAtMs = Math.max(use.expiresAtMs, expiresAtMs)
    uses.set(name, use)
  }
  return [...uses]
    .map(([authorityId, use]) => ({ authorityId, ...use }))
    .sort((a, b) => (a.authorityId < b.authorityId ? -1 : 1))
}
