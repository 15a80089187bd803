import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { type CallContext, Encoded, type TlsPeer } from '#rpc/call.ts'
import { type ReportRequest, Update, type WatchRequest } from '#rpc/gen/assay/server/v1/feed.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { BundleCache } from '../bundle/bundle-cache.ts'
import type { Datastore } from '../datastore/datastore.ts'
import type { AuthorizedEntries } from '../entry/authorized-entries.ts'
import type { LostState } from '../node/lost-state.ts'
import type { NodeCache } from '../node/node-cache.ts'
import type { HoldingsReport, NodeHoldings } from '../node/node-holdings.ts'
import { recordAgentVersion } from './agent.ts'
import { agentOf, agentStanding } from './authorize.ts'
import { bundleField } from './bundle-messages.ts'
import type { ConnectedAgents } from './connected-agents.ts'
import { entryField } from './entry-messages.ts'
import { malformed } from './messages.ts'
import { pqField } from './pq-messages.ts'
import { joinFields } from './protobuf-fields.ts'

export interface FeedServiceDependencies {
  readonly trustDomain: TrustDomain
  readonly entries: Pick<AuthorizedEntries, 'entriesFor' | 'onChange'>
  readonly nodes: Pick<NodeCache, 'node' | 'onChange'>
  readonly bundles: Pick<BundleCache, 'bundle' | 'onChange'>
  readonly datastore: Pick<Datastore, 'node' | 'updateNode' | 'revision'>
  readonly connected: ConnectedAgents
  readonly holdings: Pick<NodeHoldings, 'report'>
  readonly lostState: Pick<LostState, 'compare'>
  /** Over how many seconds agents spread the replacement of what a tainted authority signed. */
  readonly replacementSpreadSeconds: number
  readonly clock: Clock
}

/** An update is sent at least this often; the promise is 60 seconds. */
const heartbeatSeconds = 50

/** `assay.server.v1.Feed`: tells each agent what concerns it, as it happens. */
export function newFeedService(dependencies: FeedServiceDependencies) {
  return {
    /**
     * Sends everything, then what changes. Changes that come while the agent is still reading are put together,
     * because the next update is worked out only when the last one is on its way. The stream ends as soon as
     * the agent may no longer act: banned, evicted, its SVID expired or replaced.
     */
    async *watch(
      { agentVersion, bundleSequenceNumber }: WatchRequest,
      context: CallContext,
    ): AsyncGenerator<Encoded> {
      const agentId = agentOf(context)
      const peer = context.peer as TlsPeer
      if (agentVersion.length > 255) throw malformed('agent version', 'it is too long')
      if (agentVersion !== '') {
        await recordAgentVersion(dependencies.datastore, agentId, agentVersion)
      }
      const { trustDomain, entries, nodes, bundles, connected, clock, datastore } = dependencies
      dependencies.lostState.compare(agentId, bundleSequenceNumber)
      using listening = new DisposableStack()
      const news = new News(clock)
      listening.use(connected.add(agentId, peer.address))
      listening.use(entries.onChange(agentId, () => news.tell()))
      listening.use(nodes.onChange(agentId, () => news.tell()))
      let sent: Sent = { entries: new Map(), bundle: undefined, federated: new Map() }
      listening.use(
        bundles.onChange((changed) => {
          if (changed === trustDomain || sent.federated.has(changed)) news.tell()
        }),
      )
      let complete = true
      for (;;) {
        requireStanding(dependencies, agentId, peer, context.method)
        const held = snapshot(dependencies, agentId)
        yield updateOf(sent, held, {
          complete,
          revision: BigInt(datastore.revision()),
          serverTimeMs: clock.now().epochMilliseconds,
          replacementSpreadSeconds: dependencies.replacementSpreadSeconds,
        })
        sent = held
        complete = false
        await news.wait(waitSeconds(clock, peer), context.signal)
      }
    },

    async report(request: ReportRequest, context: CallContext) {
      dependencies.holdings.report(agentOf(context), parseReport(request))
      return {}
    },
  }
}

/** More authorities than a trust domain has in its bundle, and more SVIDs than one node holds. */
const maxAuthorities = 256
const maxSvids = 1_000_000
/** The last second that a certificate can name (RFC 5280 §4.1.2.5). */
const maxSeconds = 253_402_300_799

/**
 * @throws AssayError `invalid-argument` for more authorities or SVIDs than there can be, one without a name, or a time
 * at which nothing can expire.
 */
function parseReport({
  bundleSequenceNumber,
  authorities,
  firstExpiresAt,
}: ReportRequest): HoldingsReport {
  if (authorities.length > maxAuthorities) {
    throw malformed('report', `more than ${maxAuthorities} authorities`)
  }
  checkExpiry(firstExpiresAt)
  return {
    bundleSequenceNumber,
    firstExpirySeconds: firstExpiresAt,
    authorities: authorities.map(({ authorityId, svids, expiresAt }) => {
      if (!/^[0-9a-f]{1,128}$/.test(authorityId)) {
        throw malformed('report', 'an authority id is not lower-case hex')
      }
      if (svids > maxSvids) throw malformed('report', `more than ${maxSvids} SVIDs`)
      checkExpiry(expiresAt)
      return { authorityId, svids, expiresAtSeconds: expiresAt }
    }),
  }
}

/** What is no time could not be shown to those who ask. */
function checkExpiry(seconds: number): void {
  if (seconds >= 0 && seconds <= maxSeconds) return
  throw malformed('report', `no SVID expires at ${seconds}`)
}

/** What an agent has, or is to have. */
interface Sent {
  readonly entries: ReadonlyMap<string, RegistrationEntry>
  readonly bundle: Bundle | undefined
  /** Every trust domain an entry federates with; undefined: there is no bundle of it. */
  readonly federated: ReadonlyMap<TrustDomain, Bundle | undefined>
}

function snapshot(
  { entries, bundles, trustDomain }: FeedServiceDependencies,
  agentId: SpiffeId,
): Sent {
  const held = new Map<string, RegistrationEntry>()
  const federated = new Map<TrustDomain, Bundle | undefined>()
  for (const entry of entries.entriesFor(agentId)) {
    held.set(entry.id, entry)
    for (const name of entry.federatesWith) federated.set(name, bundles.bundle(name))
  }
  return { entries: held, bundle: bundles.bundle(trustDomain), federated }
}

/** Encodes the difference between what an agent has and what it is to have. */
function updateOf(
  sent: Sent,
  held: Sent,
  head: Pick<Update, 'complete' | 'revision' | 'serverTimeMs' | 'replacementSpreadSeconds'>,
): Encoded {
  const fields: Uint8Array[] = []
  for (const [id, entry] of held.entries) {
    // Entries and bundles are immutable, so the same object is the same content.
    if (sent.entries.get(id) !== entry) fields.push(entryField(3, entry))
  }
  if (held.bundle !== undefined && held.bundle !== sent.bundle) {
    fields.push(bundleField(5, held.bundle), pqField(10, held.bundle))
  }
  for (const [name, bundle] of held.federated) {
    if (bundle !== undefined && sent.federated.get(name) !== bundle) {
      fields.push(bundleField(6, bundle))
    }
  }
  const rest = Update.create({
    ...head,
    removedEntryIds: [...sent.entries.keys()].filter((id) => !held.entries.has(id)),
    removedFederatedTrustDomains: [...sent.federated]
      .filter(([name, bundle]) => bundle !== undefined && held.federated.get(name) === undefined)
      .map(([name]) => name),
  })
  return new Encoded(joinFields([Update.encode(rest).finish(), ...fields]))
}

/** @throws AssayError `permission-denied` with the reason why the agent may no longer act. */
function requireStanding(
  { nodes, clock }: FeedServiceDependencies,
  agentId: SpiffeId,
  peer: TlsPeer,
  method: string,
): void {
  const expired = peer.expiresAtSeconds <= clock.now().epochMilliseconds / 1000
  const standing = expired ? 'agent-expired' : agentStanding(nodes.node(agentId), peer.serialNumber)
  if (typeof standing !== 'string') return
  throw new AssayError('permission-denied', `authorization denied for method ${method}`, {
    reason: standing,
  })
}

/** Until the next heartbeat or the end of the agent's SVID, whichever comes first. */
function waitSeconds(clock: Clock, peer: TlsPeer): number {
  const leftSeconds = peer.expiresAtSeconds - clock.now().epochMilliseconds / 1000
  return Math.min(heartbeatSeconds, Math.max(leftSeconds, 0))
}

/** Remembers that there is something to tell, so that nothing that happens between two waits is missed. */
class News {
  readonly #clock: Clock
  #told = false
  #wake: (() => void) | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  tell(): void {
    this.#told = true
    this.#wake?.()
  }

  /** Returns when there is news or the time is up. @throws the signal's reason. */
  async wait(seconds: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (!this.#told) {
      const stop = new AbortController()
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wake = resolve
      const timer = this.#clock.sleep(
        Temporal.Duration.from({ milliseconds: Math.ceil(seconds * 1000) }),
        AbortSignal.any([signal, stop.signal]),
      )
      try {
        await Promise.race([promise, timer])
      } finally {
        this.#wake = undefined
        stop.abort(new Error('no longer waiting'))
        timer.catch(() => {})
      }
    }
    this.#told = false
  }
}
