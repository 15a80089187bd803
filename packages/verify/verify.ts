// The public face of Assay's verifiers: what a program needs that has certificates and a bundle, and nothing that
// talks to anything. Every function throws unless all is well.
// biome-ignore-all lint/performance/noBarrelFile: this is what others import

export { AssayError } from '../../src/base/errors.ts'
export { type Certificate, parseCertificate, splitCertificates } from '../../src/pki/certificate.ts'
export { verifyChain } from '../../src/pki/chain.ts'
export { encodePem, parsePem } from '../../src/pki/pem.ts'
export {
  judgeAlternativeSignatures,
  type PqFinding,
  type PqPolicy,
  type PqState,
  verifyAlternativeSignatures,
} from '../../src/pq-crypto/alternative-chain.ts'
export {
  type CompositeAlgorithm,
  isCompositeSignedBy,
} from '../../src/pq-crypto/composite-signature.ts'
export { type Bundle, bundleFromPem } from '../../src/spiffe/bundle.ts'
export { parseBundle } from '../../src/spiffe/bundle-json.ts'
export {
  type VerifiedHybridX509Svid,
  verifyHybridX509Svid,
} from '../../src/spiffe/hybrid-x509-svid.ts'
export { type ValidatedJwtSvid, validateJwtSvid } from '../../src/spiffe/jwt-svid.ts'
export { parsePqBundle } from '../../src/spiffe/pq-bundle.ts'
export {
  type VerifiedPqX509Svid,
  validatePqJwtSvid,
  verifyPqX509Svid,
} from '../../src/spiffe/pq-svid.ts'
export { parseTrustDomain, type TrustDomain } from '../../src/spiffe/trust-domain.ts'
export { verifyX509Svid, type X509SvidPresentation } from '../../src/spiffe/x509-svid.ts'
