import type { Reader } from './marshal.ts'
import { type PcrSelection, readPcrSelections } from './pcr-selection.ts'

/** What begins every TPMS_ATTEST (TPM 2.0 Part 2 §10.12.8), whatever was attested. */
export interface AttestedHead {
  /** `generatedByTpm` in all that a TPM made; a restricted key signs nothing else that begins with it. */
  readonly magic: number
  /** A TPM_ST such as `structureTag.attestQuote`. */
  readonly type: number
  /** Qualified Name of the signing key. */
  readonly qualifiedSigner: Uint8Array
  /** The caller's qualifying data. */
  readonly extraData: Uint8Array
  /** Milliseconds of TPM uptime since the last TPM2_Clear. */
  readonly clock: bigint
  readonly resetCount: number
  readonly restartCount: number
  /** Whether the clock is known not to have been read lower before; false after an unclean power-off. */
  readonly clockIsSafe: boolean
  readonly firmwareVersion: bigint
}

/** TPMS_QUOTE_INFO (Part 2 §10.12.1). */
export interface QuoteInfo {
  readonly selections: readonly PcrSelection[]
  /** Over the selected values in ascending order, by the hash of the signature. */
  readonly pcrDigest: Uint8Array
}

/** Longest TPMS_ATTEST that is read, in bytes. */
export const maxAttestedBytes = 1024

/** @throws RangeError when it ends early or a part is too long. */
export function readAttestedHead(reader: Reader): AttestedHead {
  return {
    magic: reader.u32(),
    type: reader.u16(),
    qualifiedSigner: reader.sized(66),
    extraData: reader.sized(66),
    clock: reader.u64(),
    resetCount: reader.u32(),
    restartCount: reader.u32(),
    clockIsSafe: reader.u8() === 1,
    firmwareVersion: reader.u64(),
  }
}

/** @throws RangeError as {@link readPcrSelections}. */
export function readQuoteInfo(reader: Reader): QuoteInfo {
  return { selections: readPcrSelections(reader), pcrDigest: reader.sized(64) }
}
