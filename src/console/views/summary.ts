import type { Connection } from '#rpc/client.ts'
import { ActivityDefinition, type Counts } from '#rpc/gen/assay/server/v1/activity.ts'
import { OverviewDefinition } from '#rpc/gen/assay/server/v1/overview.ts'

const none: Counts = { x509: 0, jwt: 0, agent: 0 }

/** What the server is, how it is, what it has issued and what of that expires. Times are Unix time. */
export async function summaryView(connection: Connection, signal: AbortSignal) {
  const [overview, issued] = await Promise.all([
    connection.client(OverviewDefinition).get({}, { signal }),
    connection.client(ActivityDefinition).getIssued({}, { signal }),
  ])
  const { wentBack, pq } = overview
  return {
    version: overview.version,
    trustDomain: overview.trustDomain,
    nowMs: issued.nowMs,
    startedAt: overview.startedAt,
    checks: overview.parts,
    entries: overview.entries,
    // 64 bits: not a number in JSON.
    datastoreRevision: String(overview.revision),
    /** An agent that holds a newer state than this server has; empty: there is none. */
    wentBack: wentBack?.agentId ?? '',
    /** How far live nodes have moved to post-quantum cryptography; undefined: the server does not count it. */
    pq,
    issued: issued.minutes.map(({ at, counts = none, refused }) => ({ at, ...counts, refused })),
    expiring: issued.expiring.map(({ from, until, counts = none }) => ({
      from,
      until,
      ...counts,
    })),
    expiringLater: issued.expiringLater ?? none,
  }
}
