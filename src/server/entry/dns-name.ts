import { domainToASCII, domainToUnicode } from 'node:url'

/**
 * Letters, digits and hyphens (RFC 1123 §2.1), and the underscore, which names of machines and services have in
 * practice; 1 to 63 of them.
 */
const label = /^[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?$/

/** Why `name` cannot be a DNS name of a certificate; undefined when it can. */
export function dnsNameFault(name: string): string | undefined {
  if (name === '') return 'it is empty'
  if (name.length > 253) return 'it is longer than 253 characters'
  if (!/^[\x21-\x7e]*$/.test(name)) return 'only ASCII without spaces is allowed; write xn-- labels'
  if (name.endsWith('.')) return 'it ends with a dot'
  const isWildcard = name.startsWith('*.')
  const labels = (isWildcard ? name.slice(2) : name).split('.')
  if (labels.some((part) => part.includes('*')))
    return "'*' is allowed as the whole first label only"
  return labels.map(labelFault).find((fault) => fault !== undefined)
}

/** A name of the list that a wildcard of the list covers; undefined when there is none. */
export function coveredByWildcard(names: readonly string[]): string | undefined {
  const all = new Set(names)
  return names.find(
    (name) => !name.startsWith('*.') && all.has(`*${name.slice(Math.max(name.indexOf('.'), 0))}`),
  )
}

function labelFault(part: string): string | undefined {
  if (!label.test(part)) {
    return `label '${part}' must be 1 to 63 letters, digits, '-' and '_', and must not begin or end with '-'`
  }
  if (part.startsWith('xn--')) {
    // Canonical when decoding changes it and encoding gives it back (UTS #46).
    const decoded = domainToUnicode(part)
    if (decoded === part || domainToASCII(decoded) !== part)
      return `label '${part}' is not valid IDNA`
  } else if (part.slice(2, 4) === '--') {
    return `label '${part}' has '--' as third and fourth character`
  }
  return undefined
}
