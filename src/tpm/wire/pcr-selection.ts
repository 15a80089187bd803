import { concatBytes } from '#base/bytes.ts'
import { type HashAlgorithm, hashId, parseHashId } from './algorithms.ts'
import { type Reader, u8, u16, u32 } from './marshal.ts'

/** Platform configuration registers of one bank (TPMS_PCR_SELECTION, TPM 2.0 Part 2 §10.6.2). */
export interface PcrSelection {
  readonly bank: HashAlgorithm
  /** 0 to 23, ascending, without repetition. */
  readonly indexes: readonly number[]
}

/** How many registers a PC Client TPM has (PTP §4.6): a bit map of three bytes. */
const pcrCount = 24

/** @throws RangeError for an index outside 0 to 23. */
export function pcrSelection(bank: HashAlgorithm, indexes: Iterable<number>): PcrSelection {
  const ascending = [...new Set(indexes)].sort((a, b) => a - b)
  for (const index of ascending)
    if (!Number.isInteger(index) || index < 0 || index >= pcrCount)
      throw new RangeError(`cannot select PCR ${index}: a TPM has 0 to ${pcrCount - 1}`)
  return { bank, indexes: ascending }
}

/** TPML_PCR_SELECTION of one bank: `count(4) ‖ hash(2) ‖ sizeofSelect(1) ‖ map(3)`. */
export function writePcrSelection({ bank, indexes }: PcrSelection): Uint8Array {
  const map = new Uint8Array(pcrCount / 8)
  for (const index of indexes) map[index >> 3] = (map[index >> 3] ?? 0) | (1 << (index & 7))
  return concatBytes(u32(1), u16(hashId(bank)), u8(map.length), map)
}

/** @throws RangeError for more than 16 banks, an unknown one, or a register above 23. */
export function readPcrSelections(reader: Reader): PcrSelection[] {
  const count = reader.u32()
  if (count > 16) throw new RangeError(`a PCR selection has ${count} banks`)
  return Array.from({ length: count }, () => {
    const bank = parseHashId(reader.u16())
    const map = reader.take(reader.u8())
    const indexes: number[] = []
    for (const [at, byte] of map.entries())
      for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) indexes.push(at * 8 + bit)
    return pcrSelection(bank, indexes)
  })
}

/** Whether both select the same registers of the same bank. */
export function samePcrSelection(a: PcrSelection, b: PcrSelection): boolean {
  return (
    a.bank === b.bank &&
    a.indexes.length === b.indexes.length &&
    a.indexes.every((index, at) => index === b.indexes[at])
  )
}
