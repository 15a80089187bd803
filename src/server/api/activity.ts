import type { Clock } from '#base/clock.ts'
import type { CallContext } from '#rpc/call.ts'
import type { Issued, Node, NodesUpdate } from '#rpc/gen/assay/server/v1/activity.ts'
import { isCovered } from '../administrators/rights.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { AttestedNodeRecord } from '../datastore/datastore.ts'
import type { IssueHistory } from '../issue-history.ts'
import type { NodeCache } from '../node/node-cache.ts'
import type { AgentConnection, NodeHoldings } from '../node/node-holdings.ts'
import { prefixesOf } from './caller.ts'
import type { ConnectedAgents } from './connected-agents.ts'

export interface ActivityServiceDependencies {
  readonly clock: Clock
  readonly startedAtSeconds: number
  readonly history: Pick<IssueHistory, 'minutes' | 'expiring'>
  readonly nodes: Pick<NodeCache, 'all'>
  readonly connected: Pick<ConnectedAgents, 'addressOf'>
  readonly holdings: Pick<NodeHoldings, 'standing' | 'connectionOf'>
  readonly authorities: Pick<AuthorityManager, 'bundleSequenceNumber'>
}

/** How often the nodes are looked at while somebody watches them: with 10,000 it takes some milliseconds. */
const lookSeconds = 1
/** The promise is 30. */
const heartbeatSeconds = 25

/** `assay.server.v1.Activity`: what a console shows and nothing else tells. */
export function newActivityService(dependencies: ActivityServiceDependencies) {
  const { clock, history, nodes } = dependencies
  return {
    async getIssued(): Promise<Issued> {
      const { periods, later } = history.expiring()
      return {
        nowMs: clock.now().epochMilliseconds,
        since: dependencies.startedAtSeconds,
        minutes: history
          .minutes()
          .map(({ atSeconds, counts, refused }) => ({ at: atSeconds, counts, refused })),
        expiring: periods.map(({ fromSeconds, untilSeconds, counts }) => ({
          from: fromSeconds,
          until: untilSeconds,
          counts,
        })),
        expiringLater: later,
      }
    },

    async *watchNodes(_request: object, context: CallContext): AsyncGenerator<NodesUpdate> {
      const prefixes = prefixesOf(context)
      let sent = new Map<string, Seen>()
      let complete = true
      let silentSeconds = 0
      for (;;) {
        const held = new Map<string, Seen>()
        const changed: Node[] = []
        const sequenceNumber = dependencies.authorities.bundleSequenceNumber()
        for (const record of nodes.all) {
          if (!isCovered(record.agentId, prefixes)) continue
          const seen = look(record, sequenceNumber)
          held.set(record.agentId, seen)
          if (!isSame(seen, sent.get(record.agentId))) changed.push(nodeMessage(seen))
        }
        const removed = [...sent.keys()].filter((id) => !held.has(id))
        sent = held
        silentSeconds += lookSeconds
        if (complete || changed.length + removed.length > 0 || silentSeconds >= heartbeatSeconds) {
          yield { complete, nodes: changed, removed }
          complete = false
          silentSeconds = 0
        }
        await clock.sleep(Temporal.Duration.from({ seconds: lookSeconds }), context.signal)
      }
    },
  }

  function look(record: AttestedNodeRecord, sequenceNumber: bigint): Seen {
    const { state, svids } = dependencies.holdings.standing(record, sequenceNumber)
    return {
      record,
      state,
      svids,
      address: dependencies.connected.addressOf(record.agentId) ?? '',
      connection: dependencies.holdings.connectionOf(record.agentId),
    }
  }
}

/** A node as it was looked at. Records are immutable: the same object is the same content. */
interface Seen {
  readonly record: AttestedNodeRecord
  readonly state: string
  readonly svids: number
  readonly address: string
  readonly connection: AgentConnection | undefined
}

const isSame = (a: Seen, b: Seen | undefined): boolean =>
  a.record === b?.record &&
  a.state === b.state &&
  a.svids === b.svids &&
  a.address === b.address &&
  a.connection?.keyAgreement === b.connection?.keyAgreement &&
  a.connection?.pq === b.connection?.pq

const nodeMessage = ({ record, state, svids, address, connection }: Seen): Node => ({
  agentId: record.agentId,
  state,
  attestationType: record.attestationType,
  agentVersion: record.agentVersion,
  attestedAt: record.attestedAtSeconds,
  expiresAt: Math.max(record.expiresAtSeconds, record.newExpiresAtSeconds),
  svids,
  address,
  keyAgreement: connection?.keyAgreement ?? '',
  pq: connection?.pq ?? '',
})
