import { randomFillSync } from 'node:crypto'

/** The only way Assay gets randomness. Every implementation but a test's is cryptographically secure. */
export interface Random {
  /** `length` fresh random bytes, owned by the caller. */
  bytes(length: number): Uint8Array
}

/** The operating system's generator through OpenSSL. Built once, in a `main.ts`. */
export class SystemRandom implements Random {
  bytes(length: number): Uint8Array {
    return randomFillSync(new Uint8Array(length))
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
  return bytes.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
