/**
 * One length-delimited field of a protobuf message, `tag ‖ length ‖ content` (wire type 2), for messages put
 * together of parts that are encoded already.
 */
export function lengthDelimited(field: number, content: Uint8Array): Uint8Array {
  const head: number[] = []
  pushVarint(head, field * 8 + 2)
  pushVarint(head, content.length)
  const bytes = new Uint8Array(head.length + content.length)
  bytes.set(head)
  bytes.set(content, head.length)
  return bytes
}

/** A true `bool` field (wire type 0); false is the absence of the field. */
export const trueField = (field: number): Uint8Array => Uint8Array.of(field * 8, 1)

/** A message of fields that are encoded already; any number of them. */
export function joinFields(fields: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const field of fields) length += field.length
  const bytes = new Uint8Array(length)
  let at = 0
  for (const field of fields) {
    bytes.set(field, at)
    at += field.length
  }
  return bytes
}

function pushVarint(bytes: number[], value: number): void {
  let rest = value
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  bytes.push(rest)
}
