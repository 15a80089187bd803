import type { Clock } from '#base/clock.ts'
import type { PqState } from '#pq-crypto/alternative-chain.ts'
import { isHybridGroup } from '#rpc/tls.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { Dependents, Holders, Survey } from '../authority/holders.ts'
import type { AttestedNodeRecord } from '../datastore/datastore.ts'
import { isBanned } from './banned.ts'

/** What an agent says it holds. */
export interface HoldingsReport {
  /** Of the own bundle that all its streams have been sent. */
  readonly bundleSequenceNumber: bigint
  readonly authorities: readonly AuthorityUse[]
  /** When the first X.509-SVID of a workload expires, Unix time; zero: none is held. */
  readonly firstExpirySeconds: number
}

/** SVIDs an agent holds of one X.509 authority. */
export interface AuthorityUse {
  readonly authorityId: string
  readonly svids: number
  /** Unix time at which the last of them expires. */
  readonly expiresAtSeconds: number
}

/** An SVID as it was handed to an agent. */
export interface HandedOut {
  /** The entry's id; empty for the agent's own SVID. */
  readonly entryId: string
  readonly authorityId: string
  readonly expiresAtSeconds: number
}

/** The connection an agent made its last call over. */
export interface AgentConnection {
  /** The group its keys are from: `X25519MLKEM768`. */
  readonly keyAgreement: string
  /** What was found of the post-quantum signatures of the SVID that the agent showed. */
  readonly pq: PqState | undefined
}

/** How far live nodes have moved to post-quantum cryptography. */
export interface PqProgress {
  /** Live nodes whose connection is known; those of which nothing was heard since the start are not among them. */
  readonly nodes: number
  /** Of these, whose SVID was verified with both of its signatures. */
  readonly verifiedNodes: number
  /** Of these, whose connection has hybrid keys. */
  readonly hybridConnections: number
  /** X.509-SVIDs that nodes hold, their own included, as far as known. */
  readonly svids: number
  /** Of these, of authorities that sign both ways. */
  readonly hybridSvids: number
}

/** The first X.509-SVID of a workload to expire while nobody renews any. */
export interface FirstBreak {
  /** Unix time; zero: none is known. */
  readonly expiresAtSeconds: number
  /** The node that holds it; empty: none is known. */
  readonly agentId: string
  /** Nodes that could act now and have not said what they hold. */
  readonly silentNodes: number
}

export interface NodeHoldingsOptions {
  /** Every attested node. */
  readonly nodes: {
    readonly all: Iterable<AttestedNodeRecord>
    node(agentId: SpiffeId): AttestedNodeRecord | undefined
  }
  /** Whether the agent has its stream open. */
  readonly isConnected: (agentId: SpiffeId) => boolean
  readonly clock: Clock
}

/** How a node is. */
export interface Standing {
  /** `lacking`: live, without the newest bundle. `away`: with a valid SVID, and not there. */
  readonly state: 'live' | 'lacking' | 'away' | 'expired' | 'banned'
  /** X.509-SVIDs that it holds, its own included, as far as known. */
  readonly svids: number
}

/** What is known of one node. */
interface Holding {
  lastSeenSeconds: number
  connection: AgentConnection | undefined
  /** It tells by itself; what it was given says nothing that its report does not say better. */
  report: HoldingsReport | undefined
  /** Without a report: what it was given before is not known. Unix time. */
  followedSinceSeconds: number
  /** Of the newest bundle it was given, and of the one before, which it has taken over when it asks again. */
  served: bigint
  taken: bigint
  /** What it was given, by entry id. Only of agents that do not report. */
  readonly handedOut: Map<string, HandedOut>
}

/** Who has not been heard of for longer is not waited for. A SPIRE agent asks every five seconds, or less in trouble. */
const liveSeconds = 60

/**
 * What every node holds of the own bundle and of the authorities' signatures. Our agents report it. Of SPIRE's
 * agents it is worked out from what they were given: a bundle counts as taken over when the agent comes back for the
 * next one, an SVID as held until its successor was signed. What was reported counts until the agent comes without its
 * stream.
 *
 * It is kept in memory only. After a start every node with a valid SVID is taken for live until it has had the time
 * to come back.
 */
export class NodeHoldings implements Holders {
  readonly #options: NodeHoldingsOptions
  readonly #startedAtSeconds: number
  /** Since when agents can come, and be let in. Undefined: they cannot yet. */
  #openSinceSeconds: number | undefined
  readonly #holdings = new Map<SpiffeId, Holding>()
  readonly #listeners = new Set<() => void>()
  #serverAuthorityId = ''

  constructor(options: NodeHoldingsOptions) {
    this.#options = options
    this.#startedAtSeconds = this.#nowSeconds()
  }

  /** Agents can come from now on, or can be let in again: all get the time to do so. */
  opened(): void {
    this.#openSinceSeconds = this.#nowSeconds()
  }

  /** The agent has made a call. */
  seen(agentId: SpiffeId, connection?: AgentConnection): void {
    const holding = this.#holding(agentId)
    holding.lastSeenSeconds = this.#nowSeconds()
    if (connection === undefined) return
    // Only what is named: the peer is the whole connection, and must not be kept.
    const { keyAgreement, pq } = connection
    holding.connection = { keyAgreement, pq }
  }

  /** The connection of the agent's last call since this server started; undefined: there was none. */
  connectionOf(agentId: SpiffeId): AgentConnection | undefined {
    return this.#holdings.get(agentId)?.connection
  }

  /** @param hybridIds the authorities, by their id, that sign both ways. */
  pqProgress(hybridIds: ReadonlySet<string>): PqProgress {
    const nowSeconds = this.#nowSeconds()
    const sum = { nodes: 0, verifiedNodes: 0, hybridConnections: 0, svids: 0, hybridSvids: 0 }
    for (const node of this.#valid()) {
      const { agentId } = node
      sum.svids += this.#allSvidsOf(agentId, nowSeconds)
      for (const id of hybridIds) sum.hybridSvids += this.#svidsOf(agentId, id, nowSeconds)
      const connection = this.connectionOf(agentId)
      if (connection === undefined || !this.#isLive(node)) continue
      sum.nodes += 1
      if (connection.pq === 'verified') sum.verifiedNodes += 1
      if (isHybridGroup(connection.keyAgreement)) sum.hybridConnections += 1
    }
    return sum
  }

  /** What the agent says replaces all that was known. */
  report(agentId: SpiffeId, report: HoldingsReport): void {
    const holding = this.#holding(agentId)
    holding.report = report
    holding.handedOut.clear()
    this.#tell()
  }

  /** The agent was given the own bundle with this sequence number. */
  bundleServed(agentId: SpiffeId, sequenceNumber: bigint): void {
    const holding = this.#holding(agentId)
    this.#voidReport(agentId, holding)
    holding.taken = holding.served
    holding.served = sequenceNumber
    this.#tell()
  }

  /** The agent was given an SVID, in place of the one it had for the same entry. */
  handedOut(agentId: SpiffeId, svid: HandedOut): void {
    const holding = this.#holding(agentId)
    this.#voidReport(agentId, holding)
    if (holding.report !== undefined) return
    holding.handedOut.set(svid.entryId, svid)
    this.#tell()
  }

  /** The server shows an SVID of this authority from now on. */
  serverUses(authorityId: string): void {
    this.#serverAuthorityId = authorityId
    this.#tell()
  }

  survey(sequenceNumber: bigint): Survey {
    let live = 0
    let away = 0
    const lacking: SpiffeId[] = []
    for (const node of this.#valid()) {
      if (!this.#isLive(node)) {
        away += 1
        continue
      }
      live += 1
      if (this.#heldSequence(node.agentId) < sequenceNumber) lacking.push(node.agentId)
    }
    return { live, lacking, away }
  }

  /** How one node is, with regard to the bundle with this sequence number, and how many X.509-SVIDs it has. */
  standing(node: AttestedNodeRecord, sequenceNumber: bigint): Standing {
    const nowSeconds = this.#nowSeconds()
    const svids = this.#allSvidsOf(node.agentId, nowSeconds)
    if (isBanned(node)) return { state: 'banned', svids }
    if (endOf(node) <= nowSeconds) return { state: 'expired', svids }
    if (!this.#isLive(node)) return { state: 'away', svids }
    const has = this.#heldSequence(node.agentId) >= sequenceNumber
    return { state: has ? 'live' : 'lacking', svids }
  }

  /** Who breaks first without the server: by what nodes say, and by what was given to those that say nothing. */
  firstBreak(): FirstBreak {
    const nowSeconds = this.#nowSeconds()
    let first = { expiresAtSeconds: 0, agentId: '' }
    let silentNodes = 0
    for (const { agentId } of this.#valid()) {
      const holding = this.#holdings.get(agentId)
      if (holding?.report === undefined) silentNodes += 1
      for (const expiresAtSeconds of workloadExpiries(holding)) {
        if (expiresAtSeconds <= nowSeconds) continue
        if (first.expiresAtSeconds !== 0 && expiresAtSeconds >= first.expiresAtSeconds) continue
        first = { expiresAtSeconds, agentId }
      }
    }
    return { ...first, silentNodes }
  }

  dependents({
    authorityId,
    sinceSeconds,
  }: {
    readonly authorityId: string
    readonly sinceSeconds: number
  }): Dependents {
    const nowSeconds = this.#nowSeconds()
    const nodes: SpiffeId[] = []
    const unknown: SpiffeId[] = []
    let svids = 0
    for (const node of this.#options.nodes.all) {
      if (isBanned(node)) continue
      const { agentId } = node
      const held = this.#svidsOf(agentId, authorityId, nowSeconds)
      svids += held
      if (held > 0) nodes.push(agentId)
      else if (this.#mayHoldMore(node, { sinceSeconds, nowSeconds })) unknown.push(agentId)
    }
    return {
      nodes,
      svids,
      unknown,
      server: this.#serverAuthorityId === authorityId,
    }
  }

  onChange(listener: () => void): Disposable {
    // A function of its own, so that one listener can be added twice.
    const own = (): void => listener()
    this.#listeners.add(own)
    return { [Symbol.dispose]: () => void this.#listeners.delete(own) }
  }

  /** Forgets nodes that are no more, and SVIDs that have expired. */
  prune(): void {
    const nowSeconds = this.#nowSeconds()
    for (const [agentId, { handedOut }] of this.#holdings) {
      if (this.#options.nodes.node(agentId) === undefined) this.#holdings.delete(agentId)
      for (const [entryId, { expiresAtSeconds }] of handedOut) {
        if (expiresAtSeconds <= nowSeconds) handedOut.delete(entryId)
      }
    }
  }

  /** Nodes that could act now. */
  *#valid(): Generator<AttestedNodeRecord> {
    const nowSeconds = this.#nowSeconds()
    for (const node of this.#options.nodes.all) {
      if (!isBanned(node) && endOf(node) > nowSeconds) yield node
    }
  }

  /** What it was given before the server started is not known, nor what was given to an agent that reported once. */
  #mayHoldMore(
    node: AttestedNodeRecord,
    { sinceSeconds, nowSeconds }: { readonly sinceSeconds: number; readonly nowSeconds: number },
  ): boolean {
    const { report, followedSinceSeconds } = this.#holdings.get(node.agentId) ?? {
      report: undefined,
      followedSinceSeconds: this.#startedAtSeconds,
    }
    return report === undefined && sinceSeconds < followedSinceSeconds && endOf(node) > nowSeconds
  }

  /**
   * An agent that has no stream open and asks for something is another one than the one that has reported: SPIRE's, to
   * which the node went back, does not say what it has. One of ours says it again with its next stream.
   */
  #voidReport(agentId: SpiffeId, holding: Holding): void {
    if (holding.report === undefined || this.#options.isConnected(agentId)) return
    holding.report = undefined
    holding.followedSinceSeconds = this.#nowSeconds() + 1
    holding.served = -1n
    holding.taken = -1n
  }

  #isLive({ agentId }: AttestedNodeRecord): boolean {
    if (this.#options.isConnected(agentId) || this.#openSinceSeconds === undefined) return true
    const lastSeenSeconds = this.#holdings.get(agentId)?.lastSeenSeconds ?? 0
    const heardSeconds = Math.max(lastSeenSeconds, this.#openSinceSeconds)
    return this.#nowSeconds() - heardSeconds < liveSeconds
  }

  #heldSequence(agentId: SpiffeId): bigint {
    const holding = this.#holdings.get(agentId)
    if (holding === undefined) return -1n
    return holding.report?.bundleSequenceNumber ?? holding.taken
  }

  #allSvidsOf(agentId: SpiffeId, nowSeconds: number): number {
    const holding = this.#holdings.get(agentId)
    let svids = 0
    for (const use of holding?.report?.authorities ?? []) {
      if (use.expiresAtSeconds > nowSeconds) svids += use.svids
    }
    if (svids > 0) return svids
    for (const one of holding?.handedOut.values() ?? []) {
      if (one.expiresAtSeconds > nowSeconds) svids += 1
    }
    return svids
  }

  #svidsOf(agentId: SpiffeId, authorityId: string, nowSeconds: number): number {
    const holding = this.#holdings.get(agentId)
    if (holding?.report !== undefined) {
      const use = holding.report.authorities.find((one) => one.authorityId === authorityId)
      return use !== undefined && use.expiresAtSeconds > nowSeconds ? use.svids : 0
    }
    let svids = 0
    for (const one of holding?.handedOut.values() ?? []) {
      if (one.authorityId === authorityId && one.expiresAtSeconds > nowSeconds) svids += 1
    }
    return svids
  }

  #holding(agentId: SpiffeId): Holding {
    let holding = this.#holdings.get(agentId)
    if (holding === undefined) {
      holding = {
        lastSeenSeconds: this.#nowSeconds(),
        connection: undefined,
        report: undefined,
        followedSinceSeconds: this.#startedAtSeconds,
        served: -1n,
        taken: -1n,
        handedOut: new Map(),
      }
      this.#holdings.set(agentId, holding)
    }
    return holding
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }

  #nowSeconds(): number {
    return Math.floor(this.#options.clock.now().epochMilliseconds / 1000)
  }
}

function* workloadExpiries(holding: Holding | undefined): Generator<number> {
  if (holding?.report !== undefined) yield holding.report.firstExpirySeconds
  for (const { entryId, expiresAtSeconds } of holding?.handedOut.values() ?? []) {
    if (entryId !== '') yield expiresAtSeconds
  }
}

/** When the last SVID of the agent expires, Unix time. */
const endOf = ({ expiresAtSeconds, newExpiresAtSeconds }: AttestedNodeRecord): number =>
  Math.max(expiresAtSeconds, newExpiresAtSeconds)
