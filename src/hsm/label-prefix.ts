import { createHash } from 'node:crypto'

/** `assay/<first 8 hex digits of SHA-256 of the trust domain's name>/`; a key id follows. */
export function labelPrefixOf(trustDomain: string): string {
  return `assay/${createHash('sha256').update(trustDomain).digest('hex').slice(0, 8)}/`
}
