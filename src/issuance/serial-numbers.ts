import type { Random } from '#base/random.ts'

const serialBytes = 16
const poolBytes = 256 * serialBytes

/**
 * Random certificate serial numbers from 1 to 2^128 - 1, 16 bytes big-endian, drawn from `random` some
 * hundred at a time.
 */
export function newSerialNumbers(random: Random): () => Uint8Array {
  let pool = new Uint8Array()
  let at = 0
  return () => {
    for (;;) {
      if (at === pool.length) {
        pool = random.bytes(poolBytes) as Uint8Array<ArrayBuffer>
        at = 0
      }
      const serial = pool.slice(at, at + serialBytes)
      at += serialBytes
      if (serial.some((byte) => byte !== 0)) return serial
    }
  }
}

/** The decimal text of a serial number, as SPIRE's API and logs show it. */
export const serialNumberText = (serial: Uint8Array): string =>
  BigInt(`0x${serial.toHex()}`).toString()
