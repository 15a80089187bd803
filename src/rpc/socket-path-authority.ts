import { Transform, type TransformCallback } from 'node:stream'
import { concatBytes } from '#base/bytes.ts'

// gRPC's Java library names the path of the socket as `:authority` (`/run/spire/agent/public/api.sock`). RFC 3986
// §3.2 allows no slash there, and nghttp2 ends such a call before anybody sees it. What follows puts a hyphen where
// such a slash stands: a string keeps its length, and the tables of HPACK (RFC 7541) theirs.

const preface = new TextEncoder().encode('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const frameHeaderBytes = 9
const settingsFrame = 4
const headersFrame = 1
const padded = 0x08
const priority = 0x20
const maxConcurrentStreams = 3
/** RFC 9113 §4.2: no peer of ours sends longer frames. */
const maxFrameBytes = 16_384
/** `:authority` in the static table (RFC 7541 Appendix A). */
const authorityIndex = 1
const authorityName = new TextEncoder().encode(':authority')
const slash = 0x2f
const hyphen = 0x2d

/**
 * Whether the first bytes of a connection are those of gRPC's Java library: only it tells a server in its first
 * SETTINGS that the server may open no streams (RFC 9113 §6.5.2), which it could not anyway.
 */
export function isFromGrpcJava(first: Uint8Array): boolean {
  const start = preface.length + frameHeaderBytes
  if (first.length < start || preface.some((byte, i) => byte !== first[i])) return false
  const { length, type } = frameHeader(first.subarray(preface.length))
  if (type !== settingsFrame || first.length < start + length) return false
  const view = new DataView(first.buffer, first.byteOffset + start, length)
  for (let at = 0; at + 6 <= length; at += 6) {
    if (view.getUint16(at) === maxConcurrentStreams) return view.getUint32(at + 2) === 0
  }
  return false
}

/**
 * What a client sends, from the preface on, with an `:authority` that HTTP/2 allows. Everything that is not a HEADERS
 * frame passes as it comes; whatever is malformed does too, for the HTTP/2 library to refuse.
 */
export class SocketPathAuthority extends Transform {
  #held: Uint8Array = new Uint8Array()
  /** Bytes that pass before the next frame begins. */
  #passing = preface.length

  override _transform(chunk: Uint8Array, _encoding: string, done: TransformCallback): void {
    let rest = this.#held.length === 0 ? chunk : concatBytes(this.#held, chunk)
    this.#held = new Uint8Array()
    while (rest.length > 0) {
      if (this.#passing > 0) {
        const passed = rest.subarray(0, this.#passing)
        this.#passing -= passed.length
        this.push(passed)
        rest = rest.subarray(passed.length)
        continue
      }
      if (rest.length < frameHeaderBytes) break
      const { length, type, flags } = frameHeader(rest)
      const whole = frameHeaderBytes + length
      if (type === headersFrame && length <= maxFrameBytes) {
        if (rest.length < whole) break
        rewriteAuthority(headerBlock(rest.subarray(frameHeaderBytes, whole), flags))
      }
      this.#passing = whole
    }
    this.#held = rest
    done()
  }
}

function frameHeader(frame: Uint8Array): { length: number; type: number; flags: number } {
  const view = new DataView(frame.buffer, frame.byteOffset, frameHeaderBytes)
  return {
    length: view.getUint16(0) * 256 + view.getUint8(2),
    type: view.getUint8(3),
    flags: view.getUint8(4),
  }
}

/** RFC 9113 §6.2. */
function headerBlock(payload: Uint8Array, flags: number): Uint8Array {
  const isPadded = (flags & padded) !== 0
  const start = (isPadded ? 1 : 0) + ((flags & priority) === 0 ? 0 : 5)
  return payload.subarray(start, payload.length - (isPadded ? (payload[0] ?? 0) : 0))
}

/** Changes the literal values of `:authority` in place (RFC 7541 §6). Stops at what it does not understand. */
function rewriteAuthority(block: Uint8Array): void {
  const reader = new HpackReader(block)
  while (!reader.isAtEnd) {
    const first = block[reader.at] ?? 0
    if (first >= 0x80) {
      reader.integer(7)
    } else if ((first & 0xe0) === 0x20) {
      reader.integer(5)
    } else {
      const index = reader.integer((first & 0xc0) === 0x40 ? 6 : 4)
      const isAuthority =
        index === 0 ? equals(reader.string(), authorityName) : index === authorityIndex
      const value = reader.string()
      // Java compresses no string as short as a path may be.
      if (!isAuthority || value === undefined || value[0] !== slash) continue
      for (const [i, byte] of value.entries()) if (byte === slash) value[i] = hyphen
    }
  }
}

const equals = (one: Uint8Array | undefined, other: Uint8Array): boolean =>
  one?.length === other.length && one.every((byte, i) => byte === other[i])

/** Reads the two primitive types of RFC 7541 §5. At anything that is cut off it is at its end. */
class HpackReader {
  at = 0
  readonly #block: Uint8Array

  constructor(block: Uint8Array) {
    this.#block = block
  }

  get isAtEnd(): boolean {
    return this.at >= this.#block.length
  }

  integer(prefixBits: number): number {
    const mask = 2 ** prefixBits - 1
    let value = (this.#block[this.at++] ?? 0) & mask
    if (value < mask) return value
    // Three bytes are enough for any length in a frame.
    for (let shift = 0; shift <= 14; shift += 7) {
      const byte = this.#block[this.at++] ?? 0
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    this.at = this.#block.length
    return 0
  }

  /** Undefined when it is compressed. */
  string(): Uint8Array | undefined {
    const isHuffman = ((this.#block[this.at] ?? 0) & 0x80) !== 0
    const length = this.integer(7)
    const value = this.#block.subarray(this.at, this.at + length)
    this.at += length
    return isHuffman ? undefined : value
  }
}
