import { concatBytes } from '#base/bytes.ts'

/** One byte. */
export const u8 = (value: number): Uint8Array => Uint8Array.of(value)

/** UINT16: two bytes, big-endian, as everything in TPM 2.0 (Part 2 §5.2). */
export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value)
}

/** UINT32. */
export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value)
}

/** UINT64. */
export function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value)
  return bytes
}

/** A TPM2B (Part 2 §10.4): `size(2) ‖ content`. @throws RangeError above 65,535 bytes of content. */
export function sized(...parts: readonly Uint8Array[]): Uint8Array {
  const content = concatBytes(...parts)
  if (content.length > 0xffff)
    throw new RangeError(`cannot marshal ${content.length} bytes as a TPM2B: 65535 are the limit`)
  return concatBytes(u16(content.length), content)
}

/**
 * Reads a structure from front to back. Nothing is allocated for a length before the bytes are known to be
 * there; what it returns are views of its input. Every method throws RangeError past the end.
 */
export class Reader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** How many bytes are left. */
  get left(): number {
    return this.#bytes.length - this.#at
  }

  /** The next `length` bytes. */
  take(length: number): Uint8Array {
    const at = this.#skip(length)
    return this.#bytes.subarray(at, at + length)
  }

  u8(): number {
    return this.#view.getUint8(this.#skip(1))
  }

  u16(): number {
    return this.#view.getUint16(this.#skip(2))
  }

  u32(): number {
    return this.#view.getUint32(this.#skip(4))
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#skip(8))
  }

  /** The content of a TPM2B of at most `maxLength` bytes. */
  sized(maxLength = 0xffff): Uint8Array {
    const length = this.u16()
    if (length > maxLength)
      throw new RangeError(
        `a TPM structure has a part of ${length} bytes where ${maxLength} are the limit`,
      )
    return this.take(length)
  }

  /** Everything that is left. */
  rest(): Uint8Array {
    return this.take(this.left)
  }

  #skip(length: number): number {
    const at = this.#at
    if (length > this.left)
      throw new RangeError(
        `a TPM structure ends after ${this.#bytes.length} bytes, ${length - this.left} too early`,
      )
    this.#at += length
    return at
  }
}

/**
 * Parses the whole of `bytes` with `read`.
 *
 * @throws RangeError when bytes are missing or left over; what `read` throws.
 */
export function parseWhole<T>(bytes: Uint8Array, read: (reader: Reader) => T): T {
  const reader = new Reader(bytes)
  const value = read(reader)
  if (reader.left > 0)
    throw new RangeError(
      `a TPM structure of ${bytes.length} bytes has ${reader.left} bytes too many`,
    )
  return value
}
