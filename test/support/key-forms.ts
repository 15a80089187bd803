import { utf8Bytes } from '#base/bytes.ts'
import type { Needles } from './process-memory.ts'

/**
 * The forms in which a private scalar (big-endian) lies in a process or a file: as it is, in DER and JWK's octets;
 * with the lowest byte first, as OpenSSL computes with it; as hex; and as base64 of whatever it is part of, PEM
 * included. Of texts the first 12 bytes count, because lines are broken.
 */
export function formsOf(name: string, scalar: Uint8Array): Needles {
  const start = scalar.subarray(0, 12)
  const texts = [0, 1, 2].map((before) => base64After(before, start))
  const forms: [string, Uint8Array][] = [
    ['big-endian', scalar],
    ['as OpenSSL holds it', scalar.toReversed()],
    ['hex', utf8Bytes(start.toHex())],
    ...texts.flatMap((text, before): [string, Uint8Array][] => [
      [`base64 after ${before}`, utf8Bytes(text)],
      [`base64url after ${before}`, utf8Bytes(urlSafe(text))],
    ]),
  ]
  return new Map(forms.map(([form, bytes]) => [`${name}, ${form}`, bytes]))
}

/** The base64 digits that depend on `bytes` alone when so many bytes, modulo 3, precede them. */
function base64After(before: number, bytes: Uint8Array): string {
  const padded = new Uint8Array(before + bytes.length)
  padded.set(bytes, before)
  const whole = padded.subarray(0, padded.length - (padded.length % 3)).toBase64()
  return whole.slice(before === 0 ? 0 : before + 1)
}

const urlSafe = (base64: string): string => base64.replaceAll('+', '-').replaceAll('/', '_')
