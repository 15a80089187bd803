import { parseTrustDomain, type TrustDomain } from './trust-domain.ts'

/**
 * A well-formed SPIFFE ID in its only text form, `spiffe://<trust domain><path>` (SPIFFE-ID §2), at most
 * 2048 bytes. It is a string, so it compares, hashes and prints as itself. Only {@link parseSpiffeId} and
 * {@link spiffeId} make one.
 */
export type SpiffeId = string & { readonly [spiffeIdBrand]: true }
declare const spiffeIdBrand: unique symbol

/** Longest SPIFFE ID that is accepted or made, in bytes (SPIFFE-ID §2.3). */
export const maxSpiffeIdBytes = 2048

const prefix = 'spiffe://'
const segment = /^[a-zA-Z0-9._-]+$/

/** @throws SyntaxError that names the first rule `text` breaks. */
export function parseSpiffeId(text: string): SpiffeId {
  const invalid = (why: string): SyntaxError =>
    new SyntaxError(`invalid SPIFFE ID ${JSON.stringify(text.slice(0, 256))}: ${why}`)
  if (text.length > maxSpiffeIdBytes) throw invalid(`longer than ${maxSpiffeIdBytes} bytes`)
  if (!text.startsWith(prefix)) throw invalid(`it does not start with ${prefix}`)
  const slash = text.indexOf('/', prefix.length)
  const name = slash < 0 ? text.slice(prefix.length) : text.slice(prefix.length, slash)
  try {
    parseTrustDomain(name)
  } catch (cause) {
    throw new SyntaxError(
      `invalid SPIFFE ID ${JSON.stringify(text.slice(0, 256))}: its trust domain is not valid`,
      { cause },
    )
  }
  if (slash >= 0) {
    for (const part of text.slice(slash + 1).split('/')) {
      if (part === '') throw invalid('a path segment is empty')
      if (part === '.' || part === '..') throw invalid(`a path segment is '${part}'`)
      if (!segment.test(part))
        throw invalid(`a path segment has a character outside a-z, A-Z, 0-9, '.', '-' and '_'`)
    }
  }
  return text as SpiffeId
}

/**
 * The ID of `path` in a trust domain. `path` is empty or begins with `/`.
 *
 * @throws SyntaxError when the path is not well-formed.
 */
export function spiffeId(trustDomain: TrustDomain, path: string): SpiffeId {
  // Without the slash the path would become part of the trust domain.
  if (path !== '' && !path.startsWith('/')) {
    throw new SyntaxError(
      `invalid path ${JSON.stringify(path.slice(0, 256))}: it must begin with /`,
    )
  }
  return parseSpiffeId(`${prefix}${trustDomain}${path}`)
}

/** The trust domain of an ID. */
export function trustDomainOf(id: SpiffeId): TrustDomain {
  const slash = id.indexOf('/', prefix.length)
  return (slash < 0 ? id.slice(prefix.length) : id.slice(prefix.length, slash)) as TrustDomain
}

/** The path of an ID: empty, or beginning with `/`. */
export function pathOf(id: SpiffeId): string {
  const slash = id.indexOf('/', prefix.length)
  return slash < 0 ? '' : id.slice(slash)
}

/** The ID every server of a trust domain serves under. */
export const serverId = (trustDomain: TrustDomain): SpiffeId =>
  spiffeId(trustDomain, '/spire/server')
