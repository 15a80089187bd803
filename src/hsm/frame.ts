/** No frame may be longer: room for about a thousand keys in one `ready` event. */
export const maxFrameBytes = 1 << 20

const headerBytes = 9

/** One message between the server and the signer. */
export interface Frame {
  readonly kind: number
  /** Which request this is or answers; 0 where nothing was asked. */
  readonly id: number
  /** A view into what was read: copy what must outlive the next read. */
  readonly body: Uint8Array
}

/**
 * Cuts a byte stream into frames: `length(4) ‖ kind(1) ‖ id(4) ‖ body`, big-endian, where length counts
 * all that follows it.
 */
export class FrameReader {
  #rest = new Uint8Array(0)

  /**
   * The frames that `chunk` completes.
   *
   * @throws RangeError when a length is out of bounds: the stream is not to be read any further.
   */
  read(chunk: Uint8Array): Frame[] {
    const frames: Frame[] = []
    let bytes = chunk
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length)
      bytes.set(this.#rest)
      bytes.set(chunk, this.#rest.length)
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    let at = 0
    while (bytes.length - at >= 4) {
      const length = view.getUint32(at)
      if (length < headerBytes - 4 || length > maxFrameBytes) {
        throw new RangeError(`cannot read signer frame: length ${length} is out of bounds`)
      }
      const end = at + 4 + length
      if (end > bytes.length) break
      frames.push({
        kind: view.getUint8(at + 4),
        id: view.getUint32(at + 5),
        body: bytes.subarray(at + headerBytes, end),
      })
      at = end
    }
    this.#rest = new Uint8Array(bytes.subarray(at))
    return frames
  }
}

/** Sends frames; those sent in one turn leave in one write. */
export class FrameWriter {
  readonly #write: (bytes: Uint8Array) => void
  #queued: Uint8Array[] = []
  #queuedBytes = 0

  constructor(write: (bytes: Uint8Array) => void) {
    this.#write = write
  }

  /**
   * Queues one frame whose body is `parts` in order. The parts are copied before this returns.
   *
   * @throws RangeError when it would be longer than {@link maxFrameBytes}.
   */
  send(kind: number, id: number, ...parts: readonly Uint8Array[]): void {
    let length = headerBytes - 4
    for (const part of parts) length += part.length
    if (length > maxFrameBytes) {
      throw new RangeError(`cannot send signer frame: length ${length} is out of bounds`)
    }
    const frame = new Uint8Array(4 + length)
    const view = new DataView(frame.buffer)
    view.setUint32(0, length)
    view.setUint8(4, kind)
    view.setUint32(5, id)
    let at = headerBytes
    for (const part of parts) {
      frame.set(part, at)
      at += part.length
    }
    if (this.#queued.length === 0) queueMicrotask(() => this.#flush())
    this.#queued.push(frame)
    this.#queuedBytes += frame.length
  }

  #flush(): void {
    const frames = this.#queued
    const first = frames[0]
    if (frames.length === 1 && first !== undefined) {
      this.#write(first)
    } else {
      const joined = new Uint8Array(this.#queuedBytes)
      let at = 0
      for (const frame of frames) {
        joined.set(frame, at)
        at += frame.length
      }
      this.#write(joined)
    }
    this.#queued = []
    this.#queuedBytes = 0
  }
}
