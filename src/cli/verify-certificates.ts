import { AssayError } from '#base/errors.ts'
import type { Certificate } from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import { judgeAlternativeSignatures, type PqState } from '#pq-crypto/alternative-chain.ts'

/** What a bundle says to one certificate. */
export interface CertificateVerdict {
  readonly classical: 'verified' | 'refused'
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
  try {
    const path = verifyChain({
      leaf: certificate,
      intermediates: others,
      roots: authorities,
      nowSeconds,
    })
    const { pq, detail } = judgeAlternativeSignatures(path)
    const issuers = path.slice(1).map(({ subjectText }) => subjectText)
    return { classical: 'verified', pq, detail, issuers }
  } catch (error) {
    if (!(error instanceof AssayError)) throw error
    return { classical: 'refused', pq: undefined, detail: error.message, issuers: [] }
  }
}
