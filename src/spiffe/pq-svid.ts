import { AssayError } from '#base/errors.ts'
import { type MlDsaParameterSet, parseMlDsaPublicKey } from '#pq-crypto/ml-dsa.ts'
import { verifyMlDsaSignature } from '#pq-crypto/ml-dsa-certificate.ts'
import { mlDsaJwsAlgorithm, verifyMlDsaJws } from '#pq-crypto/ml-dsa-jose.ts'
import { type JwtSvidExpectation, type ValidatedJwtSvid, validate } from './jwt-svid.ts'
import { type VerifiedX509Svid, verifyX509Svid, type X509SvidPresentation } from './x509-svid.ts'

/** A peer that has proved its identity by ML-DSA alone. */
export interface VerifiedPqX509Svid extends VerifiedX509Svid {
  /** Of its key. */
  readonly parameterSet: MlDsaParameterSet
}

/**
 * Validates an X.509-SVID as {@link verifyX509Svid} does, whose key and all of whose signatures are to be ML-DSA;
 * `bundles` gives post-quantum bundles (`parsePqBundle()`).
 *
 * @throws AssayError `unauthenticated`: a reason of `verifyX509Svid()` or `verifyMlDsaSignature()`, or `key-not-allowed`
 * when the key of the SVID itself is not ML-DSA, so that the handshake would not be proved by it.
 */
export function verifyPqX509Svid(
  presentation: Omit<X509SvidPresentation, 'verifySignature'>,
): VerifiedPqX509Svid {
  const verified = verifyX509Svid({ ...presentation, verifySignature: verifyMlDsaSignature })
  try {
    const { parameterSet } = parseMlDsaPublicKey(verified.leaf.publicKey)
    return { ...verified, parameterSet }
  } catch (cause) {
    throw new AssayError(
      'unauthenticated',
      `cannot accept the X.509-SVID of ${verified.spiffeId}: its key is not ML-DSA`,
      { reason: 'key-not-allowed', cause },
    )
  }
}

/**
 * Validates a JWT-SVID as `validateJwtSvid()` does, that is signed by ML-DSA (RFC 9964); `bundles` gives post-quantum
 * bundles.
 *
 * @throws AssayError `unauthenticated`, as `validateJwtSvid()`.
 */
export const validatePqJwtSvid = (
  token: string,
  expectation: JwtSvidExpectation,
): ValidatedJwtSvid =>
  validate(token, expectation, {
    algorithms: Object.values(mlDsaJwsAlgorithm),
    verify: verifyMlDsaJws,
  })
