import { Encoded } from '#rpc/call.ts'
import {
  EntryRevision,
  type SyncAuthorizedEntriesRequest,
} from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { entryField } from './entry-messages.ts'
import { malformed } from './messages.ts'
import { joinFields, lengthDelimited, trueField } from './protobuf-fields.ts'

/** Most entries or revisions of one answer. Clients learn it from the first page. */
export const syncPageSize = 500

/** Field numbers of `SyncAuthorizedEntriesResponse`. */
const field = { entryRevisions: 1, entries: 2, more: 3 } as const

/**
 * `Entry.SyncAuthorizedEntries`. Up to a page of entries is sent whole at once, and that is all. With more,
 * the agent is first told their revisions, then asks, as often as it likes, for those it does not have; each
 * such request is answered with at least one message.
 *
 * @param authorized what the agent may serve, as it was when the call began.
 */
export async function* syncAuthorizedEntries(
  authorized: readonly RegistrationEntry[],
  requests: AsyncIterable<SyncAuthorizedEntriesRequest>,
): AsyncGenerator<Encoded, void, void> {
  const incoming = requests[Symbol.asyncIterator]()
  const first = await incoming.next()
  if (first.done === true) return
  const { ids, outputMask: mask } = first.value
  if (ids.length > 0)
    throw malformed('request', 'specifying IDs on initial request is not supported')
  if (mask !== undefined && !mask.revisionNumber) {
    throw malformed('request', 'revision number cannot be masked')
  }
  if (authorized.length <= syncPageSize) {
    yield answer(authorized.map((entry) => entryField(field.entries, entry, mask)))
    return
  }
  yield* pages(authorized, revisionField)
  const byId = new Map(authorized.map((entry) => [entry.id, entry]))
  for (;;) {
    const next = await incoming.next()
    if (next.done === true) return
    const wanted = [...new Set(next.value.ids)]
      .map((id) => byId.get(id))
      .filter((entry) => entry !== undefined)
    yield* pages(wanted, (entry) => entryField(field.entries, entry, mask))
  }
}

function* pages(
  entries: readonly RegistrationEntry[],
  encode: (entry: RegistrationEntry) => Uint8Array,
): Generator<Encoded, void, void> {
  for (let at = 0; at === 0 || at < entries.length; at += syncPageSize) {
    const page = entries.slice(at, at + syncPageSize).map(encode)
    if (at + syncPageSize < entries.length) page.push(trueField(field.more))
    yield answer(page)
  }
}

const answer = (fields: readonly Uint8Array[]): Encoded => new Encoded(joinFields(fields))

const revisionField = ({ id, revisionNumber, createdAtSeconds }: RegistrationEntry): Uint8Array =>
  lengthDelimited(
    field.entryRevisions,
    EntryRevision.encode({ id, revisionNumber, createdAt: createdAtSeconds }).finish(),
  )
