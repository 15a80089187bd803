import { utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { parseSelector, selectorSet, selectorType } from '#spiffe/selector.ts'
import { parseSpiffeId, pathOf, type SpiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain, type TrustDomain } from '#spiffe/trust-domain.ts'
import { coveredByWildcard, dnsNameFault } from './dns-name.ts'

/** Longest hint, in bytes of UTF-8. */
const maxHintBytes = 1024

/** The wire carries TTLs as int32. */
const maxTtlSeconds = 2 ** 31 - 1

const entryId = /^[-.0-9A-Z_a-z]{1,255}$/

/**
 * Checks everything a registration entry must be before it is stored, whoever made it.
 *
 * @throws AssayError `invalid-argument` naming the field, the value, and what is allowed.
 */
export function checkEntry(trustDomain: TrustDomain, entry: RegistrationEntry): void {
  if (!entryId.test(entry.id)) {
    throw fault('id', entry.id, "must be 1 to 255 letters, digits, '-', '.' and '_'")
  }
  checkMember('parent_id', entry.parentId, trustDomain)
  checkMember('spiffe_id', entry.spiffeId, trustDomain)
  if (/^\/spire(\/|$)/.test(pathOf(entry.spiffeId))) {
    throw fault('spiffe_id', entry.spiffeId, 'must not be below /spire, which is reserved')
  }
  checkSelectors(entry)
  checkTtl('x509_svid_ttl', entry.x509SvidTtlSeconds)
  checkTtl('jwt_svid_ttl', entry.jwtSvidTtlSeconds)
  checkFederation(entry)
  checkDnsNames(entry.dnsNames)
  const hintBytes = utf8Bytes(entry.hint).length
  if (hintBytes > maxHintBytes) {
    throw fault('hint', `${hintBytes} bytes`, `must be at most ${maxHintBytes} bytes`)
  }
  if (!Number.isSafeInteger(entry.expiresAtSeconds) || entry.expiresAtSeconds < 0) {
    throw fault('expires_at', entry.expiresAtSeconds, 'must be a Unix time, or 0 for never')
  }
}

function checkMember(field: string, id: SpiffeId, trustDomain: TrustDomain): void {
  requireForm(field, id, parseSpiffeId)
  if (trustDomainOf(id) !== trustDomain) {
    throw fault(field, id, `must be in the trust domain ${trustDomain}`)
  }
  if (pathOf(id) === '') throw fault(field, id, 'must have a path')
}

function checkSelectors({
  selectors,
  storeSvid,
  disableX509SvidPrefetch,
}: RegistrationEntry): void {
  if (selectors.length === 0) throw fault('selectors', '[]', 'must be at least one')
  for (const selector of selectors) requireForm('selectors', selector, parseSelector)
  const set = selectorSet(selectors)
  if (set.length !== selectors.length || set.some((one, index) => one !== selectors[index])) {
    throw fault('selectors', selectors.join(' '), 'must be sorted and without repetition')
  }
  if (!storeSvid) return
  const types = new Set(selectors.map(selectorType))
  if (types.size > 1) {
    throw fault('selectors', [...types].join(', '), 'must be of one type when store_svid is set')
  }
  if (disableX509SvidPrefetch) {
    throw fault('disable_x509_svid_prefetch', true, 'must not be set together with store_svid')
  }
}

function checkTtl(field: string, seconds: number): void {
  if (!Number.isInteger(seconds) || seconds < 0 || seconds > maxTtlSeconds) {
    throw fault(field, seconds, `must be 0 (the default) to ${maxTtlSeconds} seconds`)
  }
}

function checkFederation({ federatesWith }: RegistrationEntry): void {
  for (const name of federatesWith) requireForm('federates_with', name, parseTrustDomain)
  if (new Set(federatesWith).size !== federatesWith.length) {
    throw fault('federates_with', federatesWith.join(' '), 'must not repeat a trust domain')
  }
}

function checkDnsNames(names: readonly string[]): void {
  for (const name of names) {
    const why = dnsNameFault(name)
    if (why !== undefined) throw fault('dns_names', name, `is not a DNS name: ${why}`)
  }
  const covered = coveredByWildcard(names)
  if (covered !== undefined) {
    throw fault('dns_names', covered, 'is covered by a wildcard of the same entry; leave one out')
  }
}

function requireForm(field: string, value: string, parse: (text: string) => unknown): void {
  try {
    parse(value)
  } catch (cause) {
    throw fault(field, value, messageOf(cause), cause)
  }
}

function fault(field: string, value: unknown, rule: string, cause?: unknown): AssayError {
  const shown = JSON.stringify(typeof value === 'string' ? value.slice(0, 256) : value)
  return new AssayError('invalid-argument', `cannot accept entry: ${field} ${shown} ${rule}`, {
    reason: 'invalid-entry',
    cause,
  })
}
