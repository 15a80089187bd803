import { integer, readElement, readUnsigned, sequence } from './der.ts'

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

/**
 * DER to r ‖ s, each `fieldBytes` long: 32 for P-256, 48 for P-384, 66 for P-521.
 *
 * @throws SyntaxError when it is not well-formed or a number does not fit.
 */
export function derToRawSignature(der: Uint8Array, fieldBytes: number): Uint8Array {
  const numbers = readElement(der).reader()
  const raw = new Uint8Array(2 * fieldBytes)
  for (const end of [fieldBytes, 2 * fieldBytes]) {
    const number = readUnsigned(numbers.next())
    if (number.length > fieldBytes) {
      throw new SyntaxError(`invalid ECDSA signature: a number has more than ${fieldBytes} bytes`)
    }
    raw.set(number, end - number.length)
  }
  numbers.end()
  return raw
}
