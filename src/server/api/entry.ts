import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { type Random, randomUuid } from '#base/random.ts'
import { type CallContext, Encoded } from '#rpc/call.ts'
import type {
  BatchCreateEntryRequest,
  BatchDeleteEntryRequest,
  BatchUpdateEntryRequest,
  CountEntriesRequest,
  GetAuthorizedEntriesRequest,
  GetEntryRequest,
  ListEntriesRequest,
  SyncAuthorizedEntriesRequest,
} from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import type { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { Status } from '#rpc/gen/spire/api/types/status.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Datastore, EntryFilter } from '../datastore/datastore.ts'
import type { AuthorizedEntries } from '../entry/authorized-entries.ts'
import { checkEntry } from '../entry/entry-fields.ts'
import { agentOf } from './authorize.ts'
import { AuthorizedAnswers } from './authorized-answers.ts'
import { answerEach, itemStatus, noted } from './batch.ts'
import { prefixesOf } from './caller.ts'
import { entryMessage, parseEntryFilter, parseEntryMessage } from './entry-messages.ts'
import type { Guard } from './guard.ts'
import { malformed, masked, parsePage } from './messages.ts'
import { syncAuthorizedEntries } from './sync-authorized-entries.ts'

export interface EntryServiceDependencies {
  readonly trustDomain: TrustDomain
  readonly datastore: Datastore
  readonly entries: Pick<AuthorizedEntries, 'entriesFor'>
  readonly guard: Guard
  readonly clock: Clock
  readonly random: Random
}

/** `spire.api.server.entry.v1.Entry`: entries are administered, and told to the agents that serve them. */
export function newEntryService(dependencies: EntryServiceDependencies) {
  const { trustDomain, datastore, entries, guard, clock, random } = dependencies
  const answers = new AuthorizedAnswers()

  return {
    async countEntries({ filter }: CountEntriesRequest, context: CallContext) {
      return { count: await datastore.countEntries(shown(parseEntryFilter(filter), context)) }
    },

    async listEntries(request: ListEntriesRequest, context: CallContext) {
      const filter = shown(parseEntryFilter(request.filter), context)
      const { items, nextPageToken } = await datastore.listEntries(filter, parsePage(request))
      return {
        entries: items.map((entry) => entryMessage(entry, request.outputMask)),
        nextPageToken,
      }
    },

    async getEntry({ id, outputMask }: GetEntryRequest, context: CallContext) {
      if (id === '') throw malformed('entry ID', 'it is missing')
      const entry = await datastore.entry(id)
      if (entry === undefined) throw notFound(id)
      guard.checkShown(context, entry)
      return entryMessage(entry, outputMask)
    },

    /** An entry that is there already is answered with, so that a call whose reply was lost can be repeated. */
    async batchCreateEntry(request: BatchCreateEntryRequest, context: CallContext) {
      const stored = new Map<Entry, RegistrationEntry>()
      const results = await answerEach<Entry, StoredEntry, NoEntry>(
        request.entries,
        async (message) => {
          const wanted = parseEntryMessage(message, {
            id: message.id === '' ? randomUuid(random) : message.id,
            revisionNumber: 0,
            createdAtSeconds: Math.floor(clock.now().epochMilliseconds / 1000),
          })
          checkEntry(trustDomain, wanted)
          guard.checkWritten(context, wanted)
          const { entry, existing } = await datastore.createEntry(wanted)
          stored.set(message, entry)
          return {
            entry: entryMessage(entry, request.outputMask),
            ...(existing && { status: itemStatus(similar()) }),
          }
        },
        noEntry,
      )
      return noted(context, { results }, (index) => nameOf(request.entries[index], stored))
    },

    async batchUpdateEntry(request: BatchUpdateEntryRequest, context: CallContext) {
      const stored = new Map<Entry, RegistrationEntry>()
      const results = await answerEach<Entry, StoredEntry, NoEntry>(
        request.entries,
        async (message) => {
          if (message.id === '') throw malformed('entry ID', 'it is missing')
          const entry = await datastore.updateEntry(message.id, (present) => {
            guard.checkStored(context, present)
            const given = masked(message, request.inputMask, entryMessage(present))
            const changed = parseEntryMessage(given, present)
            checkEntry(trustDomain, changed)
            guard.checkWritten(context, changed)
            return changed
          })
          stored.set(message, entry)
          return { entry: entryMessage(entry, request.outputMask) }
        },
        noEntry,
      )
      return noted(context, { results }, (index) => nameOf(request.entries[index], stored))
    },

    async batchDeleteEntry({ ids }: BatchDeleteEntryRequest, context: CallContext) {
      const deleted = new Map<string, RegistrationEntry>()
      const results = await answerEach(
        ids,
        async (id) => {
          if (id === '') throw malformed('entry ID', 'it is missing')
          deleted.set(
            id,
            await datastore.deleteEntry(id, (present) => guard.checkStored(context, present)),
          )
          return { id }
        },
        (id) => ({ id }),
      )
      return noted(context, { results }, (index) => {
        const id = ids[index] ?? ''
        const entry = deleted.get(id)
        return entry === undefined ? id : entryText(entry)
      })
    },

    async getAuthorizedEntries({ outputMask }: GetAuthorizedEntriesRequest, context: CallContext) {
      return new Encoded(answers.encode(entries.entriesFor(agentOf(context)), outputMask))
    },

    syncAuthorizedEntries: (
      requests: AsyncIterable<SyncAuthorizedEntriesRequest>,
      context: CallContext,
    ) => syncAuthorizedEntries(entries.entriesFor(agentOf(context)), requests),
  }
}

/** What an administrator who is kept to some SPIFFE IDs may see of it. */
const shown = (filter: EntryFilter, context: CallContext): EntryFilter => {
  const spiffeIdPrefixes = prefixesOf(context)
  return spiffeIdPrefixes === undefined ? filter : { ...filter, spiffeIdPrefixes }
}

/** An entry for an audit record. Its parent is left out: below a join token's node it has the token in it. */
const entryText = ({ id, spiffeId, admin, downstream }: RegistrationEntry): string =>
  `${id} ${spiffeId}${admin ? ' admin' : ''}${downstream ? ' downstream' : ''}`

/** An item for an audit record: as it is stored or, when it is not, as it was asked for. */
function nameOf(message: Entry | undefined, stored: ReadonlyMap<Entry, RegistrationEntry>): string {
  if (message === undefined) return ''
  const entry = stored.get(message)
  if (entry !== undefined) return entryText(entry)
  const { id, spiffeId } = message
  const of = spiffeId === undefined ? '' : `spiffe://${spiffeId.trustDomain}${spiffeId.path}`
  return `${id} ${of}`.trim().slice(0, 512)
}

/** `status` when it is not OK although there is an entry. */
type StoredEntry = { readonly entry: Entry; readonly status?: Status }
type NoEntry = { readonly entry: undefined }
const noEntry = (): NoEntry => ({ entry: undefined })

const notFound = (id: string): AssayError =>
  new AssayError('not-found', `entry not found: ${id.slice(0, 255)}`, { reason: 'entry-not-found' })

const similar = (): AssayError =>
  new AssayError('already-exists', 'similar entry already exists', { reason: 'entry-exists' })
