import { type DerReader, derTag, readAscii, readElement } from './der.ts'

/** What a CA's name constraints (RFC 5280 §4.2.1.10) say about the kinds of names that are evaluated. */
export interface NameConstraints {
  allowsUriHost(host: string): boolean
  allowsDnsName(name: string): boolean
  /** Tags of constrained kinds that are not evaluated: names of these must be refused. */
  readonly otherKinds: ReadonlySet<number>
}

interface Subtrees {
  readonly uriHosts: string[]
  readonly dnsNames: string[]
  readonly otherKinds: Set<number>
}

const maxSubtrees = 1024

/** @throws SyntaxError when the extension's value is not well-formed. */
export function parseNameConstraints(der: Uint8Array): NameConstraints {
  const fields = readElement(der)
  if (fields.tag !== derTag.sequence) throw new SyntaxError('name constraints are not a sequence')
  const reader = fields.reader()
  const permitted = readSubtrees(reader.optional(0xa0)?.reader())
  const excluded = readSubtrees(reader.optional(0xa1)?.reader())
  reader.end()
  return {
    allowsUriHost: (host) => allows(host, permitted.uriHosts, excluded.uriHosts, uriHostMatches),
    allowsDnsName: (name) => allows(name, permitted.dnsNames, excluded.dnsNames, dnsNameMatches),
    otherKinds: permitted.otherKinds.union(excluded.otherKinds),
  }
}

/** The host of a URI with an authority, in lower case; undefined when there is none. */
export function uriHost(uri: string): string | undefined {
  const authority = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#]*)/.exec(uri)?.[1]
  const host = authority?.replace(/^.*@/, '').replace(/:\d*$/, '')
  return host === undefined || host === '' ? undefined : host.toLowerCase()
}

function readSubtrees(reader: DerReader | undefined): Subtrees {
  const subtrees: Subtrees = { uriHosts: [], dnsNames: [], otherKinds: new Set() }
  for (let count = 0; reader !== undefined && !reader.done; count++) {
    if (count >= maxSubtrees) throw new SyntaxError(`more than ${maxSubtrees} name constraints`)
    const subtree = reader.expect(derTag.sequence).reader()
    const base = subtree.next()
    const minimum = subtree.optional(0x80)
    if (minimum?.content.some((byte) => byte !== 0)) {
      throw new SyntaxError('a name constraint has a minimum')
    }
    subtree.end()
    if (base.tag === 0x86) subtrees.uriHosts.push(readAscii(base).toLowerCase())
    else if (base.tag === 0x82) subtrees.dnsNames.push(readAscii(base).toLowerCase())
    else subtrees.otherKinds.add(base.tag)
  }
  return subtrees
}

function allows(
  name: string,
  permitted: readonly string[],
  excluded: readonly string[],
  matches: (name: string, constraint: string) => boolean,
): boolean {
  if (excluded.some((constraint) => matches(name, constraint))) return false
  return permitted.length === 0 || permitted.some((constraint) => matches(name, constraint))
}

/** A host alone, or, with a leading dot, every host below it. */
function uriHostMatches(host: string, constraint: string): boolean {
  return constraint.startsWith('.') ? host.endsWith(constraint) : host === constraint
}

/** A name and every name below it; the empty constraint is all names. */
function dnsNameMatches(name: string, constraint: string): boolean {
  const lower = name.toLowerCase()
  const below = constraint.startsWith('.') ? constraint : `.${constraint}`
  return constraint === '' || lower === constraint || lower.endsWith(below)
}
