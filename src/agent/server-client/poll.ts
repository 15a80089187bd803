import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { type Random, randomFraction } from '#base/random.ts'
import type { Connection, RpcClient } from '#rpc/client.ts'
import type { BidiCall } from '#rpc/client-call.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import {
  EntryDefinition,
  type EntryRevision,
  type SyncAuthorizedEntriesRequest,
  type SyncAuthorizedEntriesResponse,
} from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AgentEntry } from '../manager/agent-entry.ts'
import type { Update } from '../manager/update.ts'
import { bundleFrom, entriesFrom } from './messages.ts'

const callLimitMs = 30_000
/** Federated bundles that are fetched at once. */
const concurrency = 10
/** SPIRE's servers learn the page size from their own constant; more ids in a request are answered all the same. */
const maxIdsPerRequest = 500

/** What the agent needs of an entry; the server applies the rest when it signs. */
const outputMask = {
  spiffeId: true,
  selectors: true,
  federatesWith: true,
  admin: true,
  downstream: true,
  revisionNumber: true,
  storeSvid: true,
  hint: true,
  createdAt: true,
  additionalAttributes: true,
}

export interface PollOptions {
  readonly connection: Connection
  readonly trustDomain: TrustDomain
  /** Nominal; each wait is up to a tenth shorter or longer. */
  readonly interval: Temporal.Duration
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/**
 * Follows a server that has no feed, SPIRE's for instance, by asking it again and again. Each update is complete;
 * entries that have not changed are not sent again by the server.
 */
export async function* poll(options: PollOptions, signal: AbortSignal): AsyncGenerator<Update> {
  const { clock, interval, random } = options
  const bundles = options.connection.client(BundleDefinition)
  const entries = options.connection.client(EntryDefinition)
  let held: ReadonlyMap<string, AgentEntry> = new Map()
  for (;;) {
    const own = await bundles.getBundle({}, { signal, timeoutMs: callLimitMs })
    const bundle = bundleFrom(own, options.log)
    held = await syncEntries(entries, { held, signal, log: options.log })
    const federated = await fetchFederated(bundles, { ...options, entries: held, signal })
    yield {
      source: 'poll',
      revision: 0n,
      complete: true,
      entries: [...held.values()],
      removedEntryIds: [],
      bundle,
      federatedBundles: federated,
      removedFederated: [],
      serverTimeMs: undefined,
      replacementSpreadSeconds: 0,
    }
    const spread = 0.9 + 0.2 * randomFraction(random)
    const waitMs = Math.round(interval.total('milliseconds') * spread)
    await clock.sleep(Temporal.Duration.from({ milliseconds: waitMs }), signal)
  }
}

type SyncCall = BidiCall<SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse>

/** SyncAuthorizedEntries: a short list comes whole, of a long one only revisions, and then what is missing. */
async function syncEntries(
  client: RpcClient<EntryDefinition>,
  options: {
    readonly held: ReadonlyMap<string, AgentEntry>
    readonly signal: AbortSignal
    readonly log: Log
  },
): Promise<ReadonlyMap<string, AgentEntry>> {
  const { held, signal, log } = options
  using call: SyncCall = client.syncAuthorizedEntries({ signal, timeoutMs: callLimitMs })
  await call.send({ outputMask })
  let page = await nextPage(call)
  if (page.entryRevisions.length === 0) {
    call.end()
    return byId(entriesFrom(page.entries, log))
  }
  const revisions: EntryRevision[] = []
  for (;;) {
    if (page.entries.length > 0) throw mixedPage()
    revisions.push(...page.entryRevisions)
    if (!page.more) break
    page = await nextPage(call)
  }
  const kept = new Map<string, AgentEntry>()
  const missing: string[] = []
  for (const revision of revisions) {
    const entry = held.get(revision.id)
    if (entry !== undefined && isCurrent(entry, revision)) kept.set(entry.id, entry)
    else missing.push(revision.id)
  }
  missing.sort()
  for (let from = 0; from < missing.length; from += maxIdsPerRequest) {
    await call.send({ ids: missing.slice(from, from + maxIdsPerRequest) })
    for (;;) {
      page = await nextPage(call)
      if (page.entryRevisions.length > 0) throw mixedPage()
      for (const entry of entriesFrom(page.entries, log)) kept.set(entry.id, entry)
      if (!page.more) break
    }
  }
  call.end()
  return kept
}

async function nextPage(call: SyncCall): Promise<SyncAuthorizedEntriesResponse> {
  const page = await call.receive()
  if (page !== undefined) return page
  throw new AssayError('internal', 'the server ended the synchronization of entries early')
}

function mixedPage(): AssayError {
  return new AssayError('internal', 'the server sent entries and revisions in one list')
}

/** A server that does not say when an entry was created (zero) is believed by its revision alone. */
function isCurrent(entry: AgentEntry, revision: EntryRevision): boolean {
  return (
    entry.revisionNumber === revision.revisionNumber &&
    (revision.createdAt === 0 || entry.createdAtSeconds === revision.createdAt)
  )
}

/** The bundles that entries federate with. One that the server does not have is left out. */
async function fetchFederated(
  client: RpcClient<BundleDefinition>,
  options: {
    readonly entries: ReadonlyMap<string, AgentEntry>
    readonly signal: AbortSignal
    readonly log: Log
  },
): Promise<Bundle[]> {
  const { entries, signal, log } = options
  const names = [...new Set([...entries.values()].flatMap((entry) => entry.federatesWith))]
  const found: Bundle[] = []
  const fetchOne = async (trustDomain: TrustDomain): Promise<void> => {
    try {
      const message = await client.getFederatedBundle(
        { trustDomain },
        { signal, timeoutMs: callLimitMs },
      )
      found.push(bundleFrom(message, log))
    } catch (error) {
      if (!(error instanceof AssayError && error.code === 'not-found')) throw error
      log.debug(
        { trustDomain },
        'the server has no bundle of a trust domain that entries federate with',
      )
    }
  }
  for (let from = 0; from < names.length; from += concurrency) {
    await Promise.all(names.slice(from, from + concurrency).map(fetchOne))
  }
  return found
}

function byId(entries: readonly AgentEntry[]): ReadonlyMap<string, AgentEntry> {
  return new Map(entries.map((entry) => [entry.id, entry]))
}
