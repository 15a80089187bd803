import { timingSafeEqual } from 'node:crypto'

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })

/** One array holding `parts` in order. */
export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const joined = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    joined.set(part, at)
    at += part.length
  }
  return joined
}

/** Equality of secrets: takes the same time whatever the content. Lengths are not hidden. */
export function equalSecrets(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

/** Equality of public bytes. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** The UTF-8 encoding of `text`. */
export function utf8Bytes(text: string): Uint8Array {
  return encoder.encode(text)
}

/** @throws TypeError when `bytes` is not well-formed UTF-8. */
export function utf8Text(bytes: Uint8Array): string {
  return decoder.decode(bytes)
}

/** Base64url without padding (RFC 4648 §5), as JOSE uses it. */
export function base64Url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: 'base64url', omitPadding: true })
}

/**
 * Takes the one text that {@link base64Url} makes of some bytes, and no other: no white space, no stray bits.
 *
 * @throws SyntaxError when `text` is not base64url without padding (RFC 7515 §2).
 */
export function parseBase64Url(text: string): Uint8Array {
  if (!/^[\w-]*$/.test(text))
    throw new SyntaxError('base64url without padding has only A-Z, a-z, 0-9, - and _')
  const padded = text.padEnd(Math.ceil(text.length / 4) * 4, '=')
  return Uint8Array.fromBase64(padded, { alphabet: 'base64url', lastChunkHandling: 'strict' })
}
