import { AssayError, messageOf } from '#base/errors.ts'
import type { FederatesWithMatch } from '#rpc/gen/spire/api/types/federateswith.ts'
import type {
  SelectorMatch,
  Selector as SelectorMessage,
} from '#rpc/gen/spire/api/types/selector.ts'
import type { SPIFFEID } from '#rpc/gen/spire/api/types/spiffeid.ts'
import {
  type Selector,
  selector,
  selectorSet,
  selectorType,
  selectorValue,
} from '#spiffe/selector.ts'
import { pathOf, type SpiffeId, spiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain, type TrustDomain } from '#spiffe/trust-domain.ts'
import type { SetMatch } from '../datastore/datastore.ts'
import { isAgentPath } from './authorize.ts'

/** Most items of one batch or selectors of one filter; a request is bounded in bytes as well. */
export const maxItems = 10_000

/** An `invalid-argument` error that says what was wrong with which part of a request. */
export function malformed(what: string, why: unknown): AssayError {
  return new AssayError('invalid-argument', `invalid ${what}: ${messageOf(why)}`, {
    cause: why,
    reason: 'malformed-request',
  })
}

/** A SPIFFE ID on the wire. */
export const idMessage = (id: SpiffeId): SPIFFEID => ({
  trustDomain: trustDomainOf(id),
  path: pathOf(id),
})

/**
 * A SPIFFE ID off the wire; `what` names it in the error.
 *
 * @throws AssayError `invalid-argument` when it is missing or not well-formed.
 */
export function parseIdMessage(message: SPIFFEID | undefined, what: string): SpiffeId {
  if (message === undefined) throw malformed(what, 'it is missing')
  try {
    // Without the slash a path would become part of the trust domain's name.
    if (message.path !== '' && !message.path.startsWith('/')) {
      throw new SyntaxError('the path does not begin with /')
    }
    return spiffeId(parseTrustDomain(message.trustDomain), message.path)
  } catch (error) {
    throw malformed(what, error)
  }
}

/** An ID of an agent of `trustDomain`, off the wire. @throws AssayError `invalid-argument`. */
export function parseAgentIdMessage(
  message: SPIFFEID | undefined,
  trustDomain: TrustDomain,
): SpiffeId {
  const id = parseIdMessage(message, 'agent ID')
  if (trustDomainOf(id) !== trustDomain) {
    throw malformed('agent ID', `${id} is not a member of trust domain ${trustDomain}`)
  }
  if (!isAgentPath(pathOf(id))) throw malformed('agent ID', `${id} is not an agent’s`)
  return id
}

/** The name of a trust domain, off the wire. @throws AssayError `invalid-argument`. */
export function parseTrustDomainField(name: string): TrustDomain {
  try {
    return parseTrustDomain(name)
  } catch (error) {
    throw malformed('trust domain', error)
  }
}

/** A selector on the wire. */
export const selectorMessage = (of: Selector): SelectorMessage => ({
  type: selectorType(of),
  value: selectorValue(of),
})

/** Selectors off the wire, sorted and without repetition. @throws AssayError `invalid-argument`. */
export function parseSelectorMessages(messages: readonly SelectorMessage[]): readonly Selector[] {
  if (messages.length > maxItems) throw malformed('selectors', `more than ${maxItems}`)
  try {
    return selectorSet(messages.map(({ type, value }) => selector(type, value)))
  } catch (error) {
    throw malformed('selector', error)
  }
}

const matches: Readonly<Record<number, SetMatch>> = {
  0: 'exact',
  1: 'subset',
  2: 'superset',
  3: 'any',
}

function parseMatch(match: number, what: string): SetMatch {
  const known = matches[match]
  if (known === undefined) throw malformed(what, `match behavior ${match} is not known`)
  return known
}

/** @throws AssayError `invalid-argument` when there is no selector or the way to match is not known. */
export function parseSelectorMatch(message: SelectorMatch): {
  readonly match: SetMatch
  readonly selectors: readonly Selector[]
} {
  const selectors = parseSelectorMessages(message.selectors)
  if (selectors.length === 0) throw malformed('filter by selectors', 'it has no selector')
  return { match: parseMatch(message.match, 'filter by selectors'), selectors }
}

/** @throws AssayError `invalid-argument` when there is no trust domain or the way to match is not known. */
export function parseFederatesWithMatch(message: FederatesWithMatch): {
  readonly match: SetMatch
  readonly trustDomains: readonly TrustDomain[]
} {
  if (message.trustDomains.length > maxItems) throw malformed('filter', `more than ${maxItems}`)
  const trustDomains = [...new Set(message.trustDomains.map(parseTrustDomainField))]
  if (trustDomains.length === 0) {
    throw malformed('filter by federates_with', 'it has no trust domain')
  }
  return { match: parseMatch(message.match, 'filter by federates_with'), trustDomains }
}

/** A page of a list. @throws AssayError `invalid-argument` for a negative size. */
export function parsePage(request: { readonly pageSize: number; readonly pageToken: string }): {
  readonly pageSize: number
  readonly pageToken: string
} {
  if (request.pageSize < 0) throw malformed('page size', 'it is negative')
  return { pageSize: request.pageSize, pageToken: request.pageToken }
}

/**
 * `message` with the fields that `mask` leaves out as in `blank`; everything without a mask. Fields that the
 * mask does not have, such as the ID, stay.
 */
export function masked<M extends object>(
  message: M,
  mask: Readonly<Partial<Record<keyof M, boolean>>> | undefined,
  blank: M,
): M {
  if (mask === undefined) return message
  const result = { ...message }
  for (const field of Object.keys(mask) as (keyof M)[]) {
    if (mask[field] === false) result[field] = blank[field]
  }
  return result
}
