/**
 * How many fields a protobuf message has at its top, repeated and unknown ones each for themselves, without decoding it:
 * two bytes can become an object of a hundred. Counting ends where the message is malformed.
 */
export function countFields(bytes: Uint8Array): number {
  let fields = 0
  let at = 0
  /** Ten bytes at most; past the end when it is not whole. */
  const varint = (): number => {
    let value = 0
    for (let place = 1; at < bytes.length; place *= 128) {
      const byte = bytes[at++] ?? 0
      value += (byte & 0x7f) * place
      if (byte < 0x80) return value
      if (place > 2 ** 63) break
    }
    at = Number.POSITIVE_INFINITY
    return value
  }
  while (at < bytes.length) {
    const tag = varint()
    const wireType = at > bytes.length ? undefined : tag & 7
    if (wireType === 0) varint()
    else if (wireType === 1) at += 8
    else if (wireType === 2) {
      const length = varint()
      at += length
    } else if (wireType === 5) at += 4
    else return fields
    fields += 1
  }
  return fields
}
