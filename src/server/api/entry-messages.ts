import type {
  CountEntriesRequest_Filter,
  ListEntriesRequest_Filter,
} from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { Entry, type EntryMask } from '#rpc/gen/spire/api/types/entry.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { EntryFilter } from '../datastore/datastore.ts'
import {
  idMessage,
  malformed,
  masked,
  maxItems,
  parseFederatesWithMatch,
  parseIdMessage,
  parseSelectorMatch,
  parseSelectorMessages,
  parseTrustDomainField,
  selectorMessage,
} from './messages.ts'
import { lengthDelimited } from './protobuf-fields.ts'

const blank = Entry.create()

/** An entry on the wire, with the fields of `mask`, or all. */
export function entryMessage(entry: RegistrationEntry, mask?: EntryMask): Entry {
  return masked(
    {
      id: entry.id,
      spiffeId: idMessage(entry.spiffeId),
      parentId: idMessage(entry.parentId),
      selectors: entry.selectors.map(selectorMessage),
      x509SvidTtl: entry.x509SvidTtlSeconds,
      jwtSvidTtl: entry.jwtSvidTtlSeconds,
      federatesWith: [...entry.federatesWith],
      dnsNames: [...entry.dnsNames],
      admin: entry.admin,
      downstream: entry.downstream,
      storeSvid: entry.storeSvid,
      hint: entry.hint,
      expiresAt: entry.expiresAtSeconds,
      revisionNumber: entry.revisionNumber,
      createdAt: entry.createdAtSeconds,
      additionalAttributes:
        entry.disableX509SvidPrefetch || entry.jwtSvidIncludeJti
          ? {
              disableX509SvidPrefetch: entry.disableX509SvidPrefetch,
              jwtSvidIncludeJti: entry.jwtSvidIncludeJti,
            }
          : undefined,
    },
    mask,
    blank,
  )
}

/** What an entry has been encoded as: whole, and with the mask that was asked for last. */
interface EncodedEntry {
  whole: Uint8Array | undefined
  masked: { readonly mask: string; readonly field: Uint8Array } | undefined
}

/**
 * The last encodings of each entry. An entry is immutable, and is forgotten here when the index drops it. All
 * agents of a kind ask with the same mask, so remembering one of them is enough and bounds the memory.
 */
const encoded = new WeakMap<RegistrationEntry, EncodedEntry>()

/**
 * An entry as a field of a list: its encoding, with tag and length. The list is the concatenation of these, so
 * that answering an agent costs a copy.
 *
 * @param field below 16; the same entry is asked for under few numbers.
 */
export function entryField(field: number, entry: RegistrationEntry, mask?: EntryMask): Uint8Array {
  let known = encoded.get(entry)
  if (known === undefined) {
    known = { whole: undefined, masked: undefined }
    encoded.set(entry, known)
  }
  const key = mask === undefined ? '' : maskKey(mask)
  let bytes = key === '' ? known.whole : known.masked?.mask === key ? known.masked.field : undefined
  if (bytes === undefined) {
    bytes = lengthDelimited(field, Entry.encode(entryMessage(entry, mask)).finish())
    if (key === '') known.whole = bytes
    else known.masked = { mask: key, field: bytes }
  }
  return withTag(field, bytes)
}

/** Field numbers below 16 make a tag of one byte, so that an encoding serves any of them. */
function withTag(field: number, bytes: Uint8Array): Uint8Array {
  const tag = field * 8 + 2
  if (bytes[0] === tag) return bytes
  const copy = bytes.slice()
  copy[0] = tag
  return copy
}

/** A name for what a mask lets through. */
export const maskKey = (mask: EntryMask): string =>
  Object.values(mask)
    .map((on) => (on ? '1' : '0'))
    .join('')

/** What the server, and not the request, says about an entry. */
export interface EntryOrigin {
  readonly id: string
  readonly revisionNumber: number
  readonly createdAtSeconds: number
}

/**
 * An entry off the wire. Its IDs, selectors and trust domains are well-formed; whether it may be stored is
 * {@link checkEntry}'s to say.
 *
 * @throws AssayError `invalid-argument`.
 */
export function parseEntryMessage(message: Entry, origin: EntryOrigin): RegistrationEntry {
  if (message.dnsNames.length > maxItems) throw malformed('DNS names', `more than ${maxItems}`)
  return {
    ...origin,
    spiffeId: parseIdMessage(message.spiffeId, 'spiffe_id'),
    parentId: parseIdMessage(message.parentId, 'parent_id'),
    selectors: parseSelectorMessages(message.selectors),
    x509SvidTtlSeconds: message.x509SvidTtl,
    jwtSvidTtlSeconds: message.jwtSvidTtl,
    federatesWith: [...new Set(message.federatesWith.map(parseTrustDomainField))].sort(),
    dnsNames: message.dnsNames,
    admin: message.admin,
    downstream: message.downstream,
    storeSvid: message.storeSvid,
    hint: message.hint,
    expiresAtSeconds: message.expiresAt,
    disableX509SvidPrefetch: message.additionalAttributes?.disableX509SvidPrefetch ?? false,
    jwtSvidIncludeJti: message.additionalAttributes?.jwtSvidIncludeJti ?? false,
  }
}

/** @throws AssayError `invalid-argument` for a filter that cannot be read; none is ever ignored. */
export function parseEntryFilter(
  filter: ListEntriesRequest_Filter | CountEntriesRequest_Filter | undefined,
): EntryFilter {
  if (filter === undefined) return {}
  const { bySpiffeId, byParentId, bySelectors, byFederatesWith, byHint, byDownstream } = filter
  return {
    ...(bySpiffeId && { spiffeId: parseIdMessage(bySpiffeId, 'filter by spiffe_id') }),
    ...(byParentId && { parentId: parseIdMessage(byParentId, 'filter by parent_id') }),
    ...(bySelectors && { selectors: parseSelectorMatch(bySelectors) }),
    ...(byFederatesWith && { federatesWith: parseFederatesWithMatch(byFederatesWith) }),
    ...(byHint !== undefined && { hint: byHint }),
    ...(byDownstream !== undefined && { downstream: byDownstream }),
  }
}
