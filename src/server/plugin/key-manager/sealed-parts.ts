import { concatBytes, equalBytes, utf8Bytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'

/** What one token has sealed begins with random bytes, and so with these once in 2^64 times. */
const magic = utf8Bytes('ASSAYtwo')

/** What several tokens have sealed, each by itself: `magic(8) ‖ (length(2) ‖ sealed)*`. One part stays as it is. */
export function joinSealed(parts: readonly Uint8Array[]): Uint8Array {
  const [only, ...more] = parts
  if (only !== undefined && more.length === 0) return only
  return concatBytes(magic, ...parts.flatMap((part) => [length(part.length), part]))
}

/** The parts that any one of the tokens can open. What is not of several is one part. */
export function splitSealed(sealed: Uint8Array): readonly Uint8Array[] {
  if (!equalBytes(sealed.subarray(0, magic.length), magic)) return [sealed]
  const parts: Uint8Array[] = []
  for (let at = magic.length; at < sealed.length; ) {
    if (at + 2 > sealed.length) return [sealed]
    const end = at + 2 + new DataView(sealed.buffer, sealed.byteOffset).getUint16(at)
    if (end > sealed.length) return [sealed]
    parts.push(sealed.subarray(at + 2, end))
    at = end
  }
  return parts
}

/**
 * What comes of the first of several tries that succeeds.
 *
 * @throws AssayError `unavailable` when one of them could not be made now, since that one may be the right one; else as
 * the first that failed did.
 */
export async function firstOpened(
  tries: readonly (() => Promise<Uint8Array>)[],
): Promise<Uint8Array> {
  let failure: unknown
  for (const attempt of tries) {
    try {
      return await attempt()
    } catch (error) {
      const isAway = error instanceof AssayError && error.code === 'unavailable'
      if (failure === undefined || isAway) failure = error
    }
  }
  throw failure ?? new AssayError('failed-precondition', 'cannot unseal: it is empty')
}

function length(bytes: number): Uint8Array {
  const encoded = new Uint8Array(2)
  new DataView(encoded.buffer).setUint16(0, bytes)
  return encoded
}
