import { integer, sequence } from './der.ts'

/** r ‖ s of equal length, as JOSE and PKCS#11 write it, to the DER of X.509 (RFC 3279 §2.2.3). */
export function rawToDerSignature(raw: Uint8Array): Uint8Array {
  if (raw.length === 0 || raw.length % 2 !== 0) {
    throw new RangeError(
      `cannot encode an ECDSA signature of ${raw.length} bytes: r and s differ in length`,
    )
  }
  const half = raw.length / 2
  return sequence(integer(raw.subarray(0, half)), integer(raw.subarray(half)))
}
