/** A generator of numbers in [0, 1) that gives the same sequence for the same seed (mulberry32): never for secrets. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A whole number from 0 to `limit` - 1. */
export const below = (random: () => number, limit: number): number => Math.floor(random() * limit)

/** One of `choices`. */
export function pick<T>(random: () => number, choices: readonly T[]): T {
  const chosen = choices[below(random, choices.length)]
  if (chosen === undefined) throw new RangeError('cannot pick from nothing')
  return chosen
}

/** `bytes` with one to three changes: a bit flipped, a byte set, a piece cut out or doubled. */
export function mutated(random: () => number, bytes: Uint8Array): Uint8Array {
  let result = Uint8Array.from(bytes)
  for (let changes = 1 + below(random, 3); changes > 0; changes--) {
    const at = below(random, Math.max(result.length, 1))
    const length = 1 + below(random, 8)
    switch (below(random, 4)) {
      case 0:
        result[at] = (result[at] ?? 0) ^ (1 << below(random, 8))
        break
      case 1:
        result[at] = below(random, 256)
        break
      case 2:
        result = Uint8Array.of(...result.subarray(0, at), ...result.subarray(at + length))
        break
      default:
        result = Uint8Array.of(
          ...result.subarray(0, at),
          ...result.subarray(at, at + length),
          ...result.subarray(at),
        )
    }
  }
  return result
}
