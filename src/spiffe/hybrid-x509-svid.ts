import {
  type PqFinding,
  type PqPolicy,
  verifyAlternativeSignatures,
} from '#pq-crypto/alternative-chain.ts'
import { type VerifiedX509Svid, verifyX509Svid, type X509SvidPresentation } from './x509-svid.ts'

/** A peer that has proved its identity, and what was found of post-quantum signatures. */
export interface VerifiedHybridX509Svid extends VerifiedX509Svid, PqFinding {}

/**
 * Validates an X.509-SVID as {@link verifyX509Svid} does, and then the alternative signatures of every
 * certificate below the authority by the key that authority has in the bundle
 * ({@link verifyAlternativeSignatures}).
 *
 * @throws AssayError `unauthenticated`: a reason of either function.
 */
export function verifyHybridX509Svid(
  presentation: X509SvidPresentation & {
    /** The policy for the trust domain of the peer; a federated one may have another. */
    readonly policy: PqPolicy
  },
): VerifiedHybridX509Svid {
  const verified = verifyX509Svid(presentation)
  const { path } = verified
  const finding = verifyAlternativeSignatures(path, {
    anchors: path.slice(-1),
    policy: presentation.policy,
  })
  return { ...verified, ...finding }
}
