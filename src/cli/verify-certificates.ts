import { AssayError } from '#base/errors.ts'
import type { Certificate } from '#pki/certificate.ts'
import { type ChainRequest, verifyChain } from '#pki/chain.ts'
import { judgeAlternativeSignatures, type PqState } from '#pq-crypto/alternative-chain.ts'
import { parseMlDsaAlgorithm } from '#pq-crypto/ml-dsa.ts'
import { verifyMlDsaSignature } from '#pq-crypto/ml-dsa-certificate.ts'

/** What a bundle says to one certificate. */
export interface CertificateVerdict {
  /** `none`: it is signed by ML-DSA alone, and has a chain of its own. */
  readonly classical: 'verified' | 'refused' | 'none'
  /** Undefined where the classical verification has failed already: there is no chain to judge. */
  readonly pq: PqState | undefined
  /** Why, in sentences; empty when both are verified. */
  readonly detail: string
  /** Subjects from the certificate's issuer up to the authority of the bundle. */
  readonly issuers: readonly string[]
}

/**
 * Verifies one certificate of a file, with the others of it as intermediates: its chain to an authority of the
 * bundle as RFC 5280 has it, and the post-quantum signatures of that chain.
 */
export function verifyCertificate(
  certificate: Certificate,
  options: {
    readonly others: readonly Certificate[]
    readonly authorities: readonly Certificate[]
    readonly nowSeconds: number
  },
): CertificateVerdict {
  const { others, authorities, nowSeconds } = options
  const request = { leaf: certificate, intermediates: others, roots: authorities, nowSeconds }
  if (isMlDsaSigned(certificate)) return verifyPure(request)
  try {
    const path = verifyChain(request)
    const { pq, detail } = judgeAlternativeSignatures(path)
    const issuers = path.slice(1).map(({ subjectText }) => subjectText)
    return { classical: 'verified', pq, detail, issuers }
  } catch (error) {
    if (!(error instanceof AssayError)) throw error
    return { classical: 'refused', pq: undefined, detail: error.message, issuers: [] }
  }
}

/** By the post-quantum bundle; with the classical one it ends at no authority. */
function verifyPure(request: ChainRequest): CertificateVerdict {
  try {
    const path = verifyChain({ ...request, verifySignature: verifyMlDsaSignature })
    const issuers = path.slice(1).map(({ subjectText }) => subjectText)
    return { classical: 'none', pq: 'verified', detail: '', issuers }
  } catch (error) {
    if (!(error instanceof AssayError)) throw error
    return { classical: 'none', pq: 'invalid', detail: error.message, issuers: [] }
  }
}

function isMlDsaSigned({ signatureAlgorithmIdentifier }: Certificate): boolean {
  try {
    parseMlDsaAlgorithm(signatureAlgorithmIdentifier)
    return true
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error
    return false
  }
}
