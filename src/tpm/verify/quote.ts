import { verify } from 'node:crypto'
import { concatBytes, equalBytes, equalSecrets } from '#base/bytes.ts'
import { messageOf } from '#base/errors.ts'
import { curves, digest, digestBytes } from '../wire/algorithms.ts'
import {
  type AttestedHead,
  maxAttestedBytes,
  type QuoteInfo,
  readAttestedHead,
  readQuoteInfo,
} from '../wire/attested.ts'
import { algorithm, generatedByTpm, structureTag } from '../wire/constants.ts'
import { parseWhole } from '../wire/marshal.ts'
import { type PcrSelection, samePcrSelection } from '../wire/pcr-selection.ts'
import { padLeft } from '../wire/public-key.ts'
import { readSignature, type Signature } from '../wire/signature.ts'
import type { AttestationKey } from './attestation-key.ts'
import { refusal } from './refusal.ts'

/** A quote as a node presents it. */
export interface PresentedQuote {
  /** TPMS_ATTEST, as signed. */
  readonly attested: Uint8Array
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array
  /** The PCR values it is said to be over, in ascending order of their indexes. */
  readonly pcrValues: readonly Uint8Array[]
}

/** What a quote must be by and over. */
export interface QuoteExpectation {
  readonly attestationKey: AttestationKey
  readonly qualifyingData: Uint8Array
  readonly selection: PcrSelection
}

/** What a verified quote says. */
export interface VerifiedQuote {
  readonly clock: bigint
  readonly resetCount: number
  readonly restartCount: number
  readonly clockIsSafe: boolean
  readonly firmwareVersion: bigint
  /** Values of the selected registers, by index. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>
}

/**
 * Checks a TPM2_Quote (TPM 2.0 Part 3 §18.4), in this order:
 *
 * 1. the signature is ECDSA with SHA-256, its numbers are between 1 and the order of the curve, and it is the
 *    attestation key's over these very bytes;
 * 2. the TPM itself made the structure, and as a quote;
 * 3. the signing key is a primary of the endorsement hierarchy;
 * 4. it answers this exchange: the qualifying data;
 * 5. it is over one bank and exactly the registers asked for: the selection comes from inside the signature;
 * 6. the values presented have the digest quoted.
 *
 * @throws AssayError with an {@link EvidenceRefusal}.
 */
export function verifyQuote(quote: PresentedQuote, expected: QuoteExpectation): VerifiedQuote {
  const { attestationKey, qualifyingData, selection } = expected
  verifySignature(quote, attestationKey)
  const { body, ...attested } = parseAttested(quote.attested)
  if (attested.magic !== generatedByTpm)
    throw refusal('quote-magic', 'cannot accept the quote: the structure was not made by a TPM')
  if (attested.type !== structureTag.attestQuote)
    throw refusal(
      'quote-type',
      `cannot accept the quote: the structure has type 0x${attested.type.toString(16)}, not that of a quote`,
    )
  if (!equalBytes(attested.qualifiedSigner, attestationKey.qualifiedName))
    throw refusal(
      'quote-qualified-signer',
      'cannot accept the quote: its key is not a primary key of the endorsement hierarchy',
    )
  if (!equalSecrets(attested.extraData, qualifyingData))
    throw refusal(
      'quote-qualifying-data',
      'cannot accept the quote: it was made for another exchange, key or connection',
    )
  const { selections, pcrDigest } = parseQuoteInfo(body)
  const [quoted] = selections
  if (quoted === undefined || selections.length !== 1)
    throw refusal(
      'quote-pcr-banks',
      `cannot accept the quote: it is over ${selections.length} PCR banks, not one`,
    )
  if (!samePcrSelection(quoted, selection))
    throw refusal(
      'quote-pcr-selection',
      `cannot accept the quote: it is over ${describe(quoted)}, not ${describe(selection)}`,
    )
  return {
    clock: attested.clock,
    resetCount: attested.resetCount,
    restartCount: attested.restartCount,
    clockIsSafe: attested.clockIsSafe,
    firmwareVersion: attested.firmwareVersion,
    pcrs: verifyValues(quote.pcrValues, selection, pcrDigest),
  }
}

function verifySignature({ attested, signature }: PresentedQuote, key: AttestationKey): void {
  const parsed = parseSignature(signature)
  if (parsed.algorithm !== algorithm.ecdsa || parsed.hash !== 'sha256')
    throw refusal(
      'quote-signature-algorithm',
      'cannot accept the quote: it is not signed by ECDSA with SHA-256',
    )
  const { fieldBytes, order } = curves['P-256']
  const { r, s } = parsed
  const valid = [r, s].every((number) => number.length <= fieldBytes && isBelow(number, order))
  if (!valid)
    throw refusal(
      'quote-signature-range',
      'cannot accept the quote: a number of its signature is zero or not below the order of the curve',
    )
  const raw = concatBytes(padLeft(r, fieldBytes), padLeft(s, fieldBytes))
  const signer = { key: key.publicKey, dsaEncoding: 'ieee-p1363' as const }
  if (!verify(parsed.hash, attested, signer, raw))
    throw refusal(
      'quote-signature-invalid',
      'cannot accept the quote: it is not signed by the attestation key',
    )
}

function verifyValues(
  values: readonly Uint8Array[],
  { bank, indexes }: PcrSelection,
  quoted: Uint8Array,
): ReadonlyMap<number, Uint8Array> {
  if (values.length !== indexes.length)
    throw refusal(
      'quote-pcr-count',
      `cannot accept the PCR values: there are ${values.length} for ${indexes.length} registers`,
    )
  const size = digestBytes(bank)
  if (values.some((value) => value.length !== size))
    throw refusal('quote-pcr-size', `cannot accept the PCR values: one is not ${size} bytes long`)
  if (!equalBytes(digest('sha256', ...values), quoted))
    throw refusal('quote-pcr-digest', 'cannot accept the PCR values: they are not those quoted')
  return new Map(indexes.map((index, at) => [index, values[at] ?? new Uint8Array(0)]))
}

function parseSignature(bytes: Uint8Array): Signature {
  try {
    return parseWhole(bytes, readSignature)
  } catch (cause) {
    throw refusal(
      'quote-signature-malformed',
      `cannot read the quote's signature: ${messageOf(cause)}`,
      { cause },
    )
  }
}

function parseAttested(bytes: Uint8Array): AttestedHead & { readonly body: Uint8Array } {
  try {
    if (bytes.length > maxAttestedBytes)
      throw new RangeError(`it has ${bytes.length} bytes where ${maxAttestedBytes} are the limit`)
    return parseWhole(bytes, (reader) => ({ ...readAttestedHead(reader), body: reader.rest() }))
  } catch (cause) {
    throw refusal('quote-malformed', `cannot read the quote: ${messageOf(cause)}`, { cause })
  }
}

function parseQuoteInfo(body: Uint8Array): QuoteInfo {
  try {
    return parseWhole(body, readQuoteInfo)
  } catch (cause) {
    throw refusal('quote-malformed', `cannot read the quote: ${messageOf(cause)}`, { cause })
  }
}

function isBelow(bytes: Uint8Array, order: bigint): boolean {
  const value = BigInt(`0x0${bytes.toHex()}`)
  return value > 0n && value < order
}

const describe = ({ bank, indexes }: PcrSelection): string => `${bank}:${indexes.join(',')}`
