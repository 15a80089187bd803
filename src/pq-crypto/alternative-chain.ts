import { equalBytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import { type Certificate, describe } from '#pki/certificate.ts'
import { altPublicKey, altSignature, isAltSignedBy } from './alternative-signature.ts'
import type { MlDsaParameterSet, MlDsaPublicKey } from './ml-dsa.ts'

/**
 * What a verifier wants of the post-quantum signatures of a chain:
 *
 * - `prefer`: where they are they must be right. Whoever can forge the classical signature can leave them out, so
 *   this is for the time in which a fleet moves over, and protects nothing by itself.
 * - `require`: they are there and right, for every certificate below an anchor that has a post-quantum key.
 */
export type PqPolicy = 'prefer' | 'require'

/**
 * What was found about the post-quantum signatures of a chain:
 *
 * - `verified`: every certificate below the anchor is signed by the ML-DSA key of the one above.
 * - `absent`: the anchor has no such key, or a certificate below it no such signature.
 * - `invalid`: there is one that is not by the key above, or that is not well-formed.
 */
export type PqState = 'verified' | 'absent' | 'invalid'

export interface PqFinding {
  readonly pq: PqState
  /** The parameter set of the anchor's key; undefined when it has none. */
  readonly parameterSet: MlDsaParameterSet | undefined
  /** Which certificate, and why. Empty when `verified`. */
  readonly detail: string
}

/**
 * Judges the alternative signatures of a chain that has been verified classically (`verifyChain()`).
 *
 * `path` is the leaf first and the trust anchor last. The first key is the anchor's; every further key is the
 * one in a certificate whose own alternative signature has verified. What a certificate says of itself decides
 * nothing: with an anchor that has no key, whatever stands below is `absent`.
 */
export function judgeAlternativeSignatures(path: readonly Certificate[]): PqFinding {
  const anchor = path.at(-1)
  if (anchor === undefined) throw new RangeError('cannot judge a chain without certificates')
  const read = attempt(() => altPublicKey(anchor))
  if (read.fault !== undefined) return found('invalid', { certificate: anchor, why: read.fault })
  const parameterSet = read.value?.parameterSet
  if (read.value === undefined) {
    return found('absent', { certificate: anchor, why: 'this authority has no post-quantum key' })
  }
  let key: MlDsaPublicKey | undefined = read.value
  let missing: PqFinding | undefined
  for (let i = path.length - 2; i >= 0; i--) {
    const certificate = path[i] as Certificate
    const step = attempt(() => judgeOne(certificate, key, { isCa: i > 0 }))
    if (step.fault !== undefined) {
      return found('invalid', { certificate, why: step.fault, parameterSet })
    }
    key = step.value?.key
    const why = step.value?.missing
    if (why !== undefined) missing ??= found('absent', { certificate, why, parameterSet })
  }
  return missing ?? { pq: 'verified', parameterSet, detail: '' }
}

/**
 * {@link judgeAlternativeSignatures}, and a policy on it.
 *
 * @param chain leaf first, trust anchor last, as `verifyChain()` returns it.
 * @throws AssayError `unauthenticated`: reason `pq-signature-invalid` under either policy,
 * `pq-signature-absent` under `require`, `unknown-authority` unless the last certificate is one of `anchors`.
 */
export function verifyAlternativeSignatures(
  chain: readonly Certificate[],
  { anchors, policy }: { readonly anchors: readonly Certificate[]; readonly policy: PqPolicy },
): PqFinding {
  const last = chain.at(-1)
  if (last === undefined || !anchors.some((anchor) => equalBytes(anchor.raw, last.raw))) {
    throw new AssayError(
      'unauthenticated',
      'cannot accept the chain: it does not end in an authority of the trust bundle',
      { reason: 'unknown-authority' },
    )
  }
  const finding = judgeAlternativeSignatures(chain)
  const { pq, detail } = finding
  if (pq === 'verified' || (pq === 'absent' && policy === 'prefer')) return finding
  throw new AssayError('unauthenticated', `cannot accept the chain: ${detail}`, {
    reason: `pq-signature-${pq}`,
  })
}

/** @throws SyntaxError that says what is wrong with the certificate. */
function judgeOne(
  certificate: Certificate,
  issuerKey: MlDsaPublicKey | undefined,
  { isCa }: { readonly isCa: boolean },
): { readonly key?: MlDsaPublicKey | undefined; readonly missing?: string } {
  const signature = altSignature(certificate)
  // Only when a certificate above was without: its key is nobody's word, so nothing can be said about this one.
  if (issuerKey === undefined)
    return { missing: 'its issuer has no post-quantum key that is vouched for' }
  if (signature === undefined) return { missing: 'it has no post-quantum signature' }
  if (signature.parameterSet !== issuerKey.parameterSet) {
    throw new SyntaxError(
      `its post-quantum signature is by ${signature.parameterSet}, and its issuer's key is for ${issuerKey.parameterSet}`,
    )
  }
  if (!isAltSignedBy(certificate, signature, issuerKey)) {
    throw new SyntaxError("its post-quantum signature is not by its issuer's key")
  }
  return { key: isCa ? altPublicKey(certificate) : undefined }
}

function attempt<T>(work: () => T): { readonly value?: T; readonly fault?: string } {
  try {
    return { value: work() }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return { fault: error.message }
  }
}

function found(
  pq: PqState,
  {
    certificate,
    why,
    parameterSet,
  }: {
    readonly certificate: Certificate
    readonly why: string
    readonly parameterSet?: MlDsaParameterSet | undefined
  },
): PqFinding {
  return { pq, parameterSet, detail: `certificate ${describe(certificate)}: ${why}` }
}
