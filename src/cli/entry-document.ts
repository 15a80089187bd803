import { AssayError } from '#base/errors.ts'
import { nearest } from '#config/nearest.ts'
import { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import { wireId, wireSelectors } from './wire.ts'

/** What one key of an entry sets. @throws SyntaxError when the value is not of its form. */
type Reader = (value: unknown) => Partial<Entry>

const ignored: Reader = () => ({})

/** Keys of an entry: SPIRE's, and those with which `assay entry list --json` prints it. */
const readers: Readonly<Record<string, Reader>> = {
  id: (value) => ({ id: text(value) }),
  entry_id: (value) => ({ id: text(value) }),
  spiffe_id: (value) => ({ spiffeId: wireId(idText(value)) }),
  parent_id: (value) => ({ parentId: wireId(idText(value)) }),
  selectors: (value) => ({ selectors: wireSelectors(list(value).map(selectorText)) }),
  x509_svid_ttl: (value) => ({ x509SvidTtl: wholeNumber(value) }),
  jwt_svid_ttl: (value) => ({ jwtSvidTtl: wholeNumber(value) }),
  federates_with: (value) => ({ federatesWith: list(value).map(text) }),
  dns_names: (value) => ({ dnsNames: list(value).map(text) }),
  hint: (value) => ({ hint: text(value) }),
  expires_at: (value) => ({ expiresAt: time(value) }),
  entry_expiry: (value) => ({ expiresAt: time(value) }),
  admin: (value) => ({ admin: truth(value) }),
  downstream: (value) => ({ downstream: truth(value) }),
  store_svid: (value) => ({ storeSvid: truth(value) }),
  revision: ignored,
  revision_number: ignored,
  created_at: ignored,
}

const attributes: Readonly<Record<string, 'disableX509SvidPrefetch' | 'jwtSvidIncludeJti'>> = {
  disable_x509_svid_prefetch: 'disableX509SvidPrefetch',
  jwt_svid_include_jti: 'jwtSvidIncludeJti',
}

const keys = [...Object.keys(readers), ...Object.keys(attributes)]

/**
 * Reads entries: SPIRE's `{"entries": [{"spiffe_id": …, "parent_id": …, "selectors": [{"type", "value"}]}]}`, what
 * `spire-server entry show -output json` prints, or the list that `assay entry list --json` prints. Selectors may be
 * text too, `unix:uid:1000`.
 *
 * @param name of the file, for messages.
 * @throws AssayError `invalid-argument` that says which entry is wrong and why.
 */
export function parseEntryDocument(content: string, name: string): Entry[] {
  const refused = (why: string, cause?: unknown): AssayError =>
    new AssayError('invalid-argument', `cannot read entries from ${name}: ${why}`, { cause })
  let document: unknown
  try {
    document = JSON.parse(content)
  } catch (cause) {
    throw refused('it is not JSON', cause)
  }
  const entries = Array.isArray(document) ? document : isRecord(document) && document['entries']
  if (!Array.isArray(entries)) throw refused('it is neither a list nor has a list "entries"')
  return entries.map((entry: unknown, index) => {
    try {
      return parseEntry(entry)
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause
      throw refused(`entry ${index + 1}: ${cause.message}`, cause)
    }
  })
}

function parseEntry(written: unknown): Entry {
  if (!isRecord(written)) throw new SyntaxError('it is not an object')
  for (const key of ['spiffe_id', 'parent_id', 'selectors'])
    if (!Object.hasOwn(written, key)) throw new SyntaxError(`it has no ${key}`)
  const entry: Partial<Entry> = {}
  const additionalAttributes = { disableX509SvidPrefetch: false, jwtSvidIncludeJti: false }
  for (const [key, value] of Object.entries(written)) {
    const attribute = Object.hasOwn(attributes, key) ? attributes[key] : undefined
    const reader = Object.hasOwn(readers, key) ? readers[key] : undefined
    try {
      if (attribute !== undefined) additionalAttributes[attribute] = truth(value)
      else if (reader !== undefined) Object.assign(entry, reader(value))
      else throw new SyntaxError(unknownKey(key))
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause
      throw new SyntaxError(`${key}: ${cause.message}`, { cause })
    }
  }
  return Entry.create({ ...entry, additionalAttributes })
}

function unknownKey(key: string): string {
  const meant = nearest(key, keys)
  return meant === undefined ? 'there is no such key' : `there is no such key; is it ${meant}?`
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function text(value: unknown): string {
  if (typeof value === 'string') return value
  throw new SyntaxError('it must be text')
}

function list(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw new SyntaxError('it must be a list')
}

function truth(value: unknown): boolean {
  if (typeof value === 'boolean') return value
  throw new SyntaxError('it must be true or false')
}

function wholeNumber(value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw new SyntaxError('it must be a whole number')
}

/** Unix time of RFC 3339 or a number; SPIRE's command line prints that as text. */
function time(value: unknown): number {
  if (typeof value !== 'string') return wholeNumber(value)
  if (/^\d{1,15}$/.test(value)) return Number(value)
  try {
    return Math.floor(Temporal.Instant.from(value).epochMilliseconds / 1000)
  } catch (cause) {
    throw new SyntaxError(`'${value}' is no time; write it like 2026-01-31T12:00:00Z`, { cause })
  }
}

/** An ID is text or, as SPIRE's command line prints it, `{"trust_domain", "path"}`. */
function idText(value: unknown): string {
  if (!isRecord(value)) return text(value)
  return `spiffe://${text(value['trust_domain'])}${text(value['path'])}`
}

function selectorText(value: unknown): string {
  if (typeof value === 'string') return value
  if (isRecord(value)) return `${text(value['type'])}:${text(value['value'])}`
  throw new SyntaxError('a selector is text, type:value, or {"type": …, "value": …}')
}
