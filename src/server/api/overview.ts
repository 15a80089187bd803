import type { Clock } from '#base/clock.ts'
import { version } from '#base/version.ts'
import type { FirstBreak, PqProgress, ServerOverview } from '#rpc/gen/assay/server/v1/overview.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Health } from '#telemetry/health.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { Datastore } from '../datastore/datastore.ts'
import type { AuthorizedEntries } from '../entry/authorized-entries.ts'
import { isBanned } from '../node/banned.ts'
import type { LostState } from '../node/lost-state.ts'
import type { NodeCache } from '../node/node-cache.ts'
import type { NodeHoldings } from '../node/node-holdings.ts'
import type { ServerSvid } from '../svid/server-svid.ts'

/** The parts of a server that are looked over. */
export interface OverviewServiceDependencies {
  readonly trustDomain: TrustDomain
  readonly startedAtSeconds: number
  readonly health: Pick<Health, 'report'>
  readonly datastore: Datastore
  readonly nodes: NodeCache
  readonly holdings: NodeHoldings
  readonly authorities: Pick<AuthorityManager, 'hybridAuthorities' | 'states'>
  readonly entries: Pick<AuthorizedEntries, 'all' | 'size'>
  readonly serverSvid: ServerSvid
  readonly lostState: LostState
  readonly svidDefaults: {
    readonly x509SvidTtlSeconds: number
    readonly jwtSvidTtlSeconds: number
  }
  readonly clock: Clock
}

/** `assay.server.v1.Overview`: from memory, but for the TPMs that wait. */
export function newOverviewService(dependencies: OverviewServiceDependencies) {
  return {
    async get(): Promise<ServerOverview> {
      const { health, datastore, entries, clock } = dependencies
      const now = Math.floor(clock.now().epochMilliseconds / 1000)
      const { ready, checks } = health.report()
      const pending = await datastore.listInventory('pending', { pageSize: 0, pageToken: '' })
      return {
        version,
        trustDomain: dependencies.trustDomain,
        startedAt: dependencies.startedAtSeconds,
        now,
        ready,
        parts: Object.entries(checks).map(([name, check]) => ({
          name,
          ready: check.live && check.ready,
          detail: check.detail ?? '',
        })),
        revision: BigInt(datastore.revision()),
        nodes: countNodes(dependencies, now),
        entries: entries.size,
        pendingTpms: pending.items.length,
        serverSvidExpiresAt: dependencies.serverSvid.current()?.expiresAtSeconds ?? 0,
        serverSvidAuthorityId: dependencies.serverSvid.current()?.authorityId ?? '',
        ...shortestLifetimes(dependencies),
        wentBack: wentBack(dependencies.lostState),
        pq: pqProgress(dependencies),
        firstBreak: firstBreak(dependencies),
      }
    },
  }
}

function countNodes({ nodes, holdings }: OverviewServiceDependencies, now: number) {
  const { live, away } = holdings.survey(0n)
  const counts = { live, away, expired: 0, banned: 0, firstExpiry: 0, firstExpiryAgentId: '' }
  for (const node of nodes.all) {
    const end = Math.max(node.expiresAtSeconds, node.newExpiresAtSeconds)
    if (isBanned(node)) counts.banned += 1
    else if (end <= now) counts.expired += 1
    else if (counts.firstExpiry === 0 || end < counts.firstExpiry) {
      counts.firstExpiry = end
      counts.firstExpiryAgentId = node.agentId
    }
  }
  return counts
}

function firstBreak({ holdings }: OverviewServiceDependencies): FirstBreak {
  const { expiresAtSeconds: expiresAt, agentId, silentNodes } = holdings.firstBreak()
  return { expiresAt, agentId, silentNodes }
}

/** What nodes report is theirs; the sum must fit the message. */
const maxUint32 = 2 ** 32 - 1

function pqProgress({ holdings, authorities }: OverviewServiceDependencies): PqProgress {
  const hybrid = authorities.hybridAuthorities()
  const { svids, hybridSvids, ...nodes } = holdings.pqProgress(new Set(hybrid.keys()))
  const active = authorities.states('x509').find(({ state }) => state === 'active')
  return {
    parameterSet: hybrid.get(active?.publishedId ?? '') ?? '',
    ...nodes,
    svids: Math.min(svids, maxUint32),
    hybridSvids: Math.min(hybridSvids, maxUint32),
  }
}

function shortestLifetimes({ entries, svidDefaults }: OverviewServiceDependencies) {
  let x509 = Number.POSITIVE_INFINITY
  let jwt = Number.POSITIVE_INFINITY
  for (const entry of entries.all) {
    x509 = Math.min(x509, entry.x509SvidTtlSeconds || svidDefaults.x509SvidTtlSeconds)
    jwt = Math.min(jwt, entry.jwtSvidTtlSeconds || svidDefaults.jwtSvidTtlSeconds)
  }
  const orZero = (seconds: number): number => (Number.isFinite(seconds) ? seconds : 0)
  return { shortestX509SvidTtl: orZero(x509), shortestJwtSvidTtl: orZero(jwt) }
}

function wentBack({ evidence }: Pick<LostState, 'evidence'>): ServerOverview['wentBack'] {
  return (
    evidence && {
      agentId: evidence.agentId,
      agentSequence: evidence.agentSequence,
      serverSequence: evidence.serverSequence,
      seenAt: evidence.seenAtSeconds,
    }
  )
}
