import { equalBytes } from '#base/bytes.ts'
import type { PresentedQuote } from '../verify/quote.ts'
import { digest } from '../wire/algorithms.ts'
import { readAttestedHead, readQuoteInfo } from '../wire/attested.ts'
import { parseWhole } from '../wire/marshal.ts'
import type { PcrSelection } from '../wire/pcr-selection.ts'
import { type LoadedKey, quote, readPcrs } from './commands.ts'
import { deviceProblem } from './problems.ts'
import type { Tpm } from './tpm.ts'

const attempts = 5

/**
 * Reads registers and quotes them; when one was extended in between, both again.
 *
 * @throws AssayError reason `tpm-pcr-bank`; `tpm-pcrs-changing` after five attempts.
 */
export async function quotePcrs(
  tpm: Tpm,
  key: LoadedKey,
  expected: { readonly qualifyingData: Uint8Array; readonly selection: PcrSelection },
): Promise<PresentedQuote> {
  const { selection } = expected
  for (let attempt = 0; attempt < attempts; attempt++) {
    const values = await readPcrs(tpm, selection)
    const signed = await quote(tpm, key, expected)
    const pcrValues = selection.indexes.map((index) => values.get(index) ?? new Uint8Array(0))
    const { pcrDigest } = parseWhole(signed.attested, (reader) => {
      readAttestedHead(reader)
      return readQuoteInfo(reader)
    })
    if (equalBytes(digest('sha256', ...pcrValues), pcrDigest)) return { ...signed, pcrValues }
  }
  throw deviceProblem('tpm-pcrs-changing', `PCRs ${selection.indexes.join(',')}, ${attempts} times`)
}
