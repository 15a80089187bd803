import { randomFillSync } from 'node:crypto'

/** The only way Assay gets randomness. Every implementation but a test's is cryptographically secure. */
export interface Random {
  /** `length` fresh random bytes, owned by the caller. */
  bytes(length: number): Uint8Array
}

/** The operating system's generator through OpenSSL. Built once, in a `main.ts`. */
export class SystemRandom implements Random {
  readonly #pool = new Uint8Array(4096)
  #used = this.#pool.length

  bytes(length: number): Uint8Array {
    // The way to the generator costs more than the bytes, so small wants are served from a larger draw.
    if (length > this.#pool.length / 16) return randomFillSync(new Uint8Array(length))
    if (this.#used + length > this.#pool.length) {
      randomFillSync(this.#pool)
      this.#used = 0
    }
    const bytes = this.#pool.slice(this.#used, this.#used + length)
    // What has been given out must not be found here later.
    this.#pool.fill(0, this.#used, this.#used + length)
    this.#used += length
    return bytes
  }
}

/** A uniform number in [0, 1), for jitter. */
export function randomFraction(random: Random): number {
  const bytes = random.bytes(4)
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) / 2 ** 32
}

/** A random UUID, version 4 (RFC 9562 §5.4), in its lower-case text form. */
export function randomUuid(random: Random): string {
  const bytes = random.bytes(16)
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = bytes.toHex()
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
