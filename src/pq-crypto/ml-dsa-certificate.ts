import { AssayError } from '#base/errors.ts'
import { type Certificate, describe } from '#pki/certificate.ts'
import { type Csr, createCsr } from '#pki/csr.ts'
import type { NameAttribute } from '#pki/name.ts'
import {
  isMlDsaSignedBy,
  type MlDsaKeyPair,
  mlDsaAlgorithm,
  parseMlDsaAlgorithm,
  parseMlDsaPublicKey,
  signMlDsaNow,
} from './ml-dsa.ts'

// Certificates and requests whose one key and one signature are ML-DSA (RFC 9881). Classical verifiers refuse them.

/**
 * Checks that the holder of an ML-DSA key (SubjectPublicKeyInfo, DER) signed `certificate`: RFC 9881 §3, with an empty
 * context. Stands in for `verifyCertificateSignature()` of classical certificates.
 *
 * @throws AssayError `unauthenticated`, reason `key-not-allowed` when the key is not ML-DSA,
 * `signature-algorithm-not-allowed` when the certificate names another algorithm than that of the key,
 * `signature-invalid`.
 */
export function verifyMlDsaSignature(certificate: Certificate, issuerPublicKey: Uint8Array): void {
  const refuse = (reason: string, why: string, cause?: unknown): AssayError =>
    new AssayError(
      'unauthenticated',
      `cannot accept certificate ${describe(certificate)}: ${why}`,
      {
        reason,
        cause,
      },
    )
  const key = attempt(() => parseMlDsaPublicKey(issuerPublicKey))
  if (key instanceof Error)
    throw refuse('key-not-allowed', `of its issuer's key: ${key.message}`, key)
  const algorithm = attempt(() => parseMlDsaAlgorithm(certificate.signatureAlgorithmIdentifier))
  if (algorithm !== key.parameterSet) {
    const why = `it is not signed by ${key.parameterSet}, which its issuer's key is for`
    throw refuse('signature-algorithm-not-allowed', why)
  }
  const { tbs: message, signature } = certificate
  if (!isMlDsaSignedBy(key, { message, signature })) {
    throw refuse('signature-invalid', "its signature is not by its issuer's key")
  }
}

/** A certification request for an ML-DSA key pair, DER (RFC 2986, RFC 9881). */
export const createMlDsaCsr = (
  { parameterSet, publicKey, privateKey }: MlDsaKeyPair,
  subject: readonly NameAttribute[] = [],
): Uint8Array =>
  createCsr({
    publicKey,
    subject,
    algorithm: mlDsaAlgorithm[parameterSet],
    sign: (tbs) => signMlDsaNow(privateKey, tbs),
  })

/**
 * Checks that the requester holds the private key, and that it is an ML-DSA key.
 *
 * @throws AssayError `invalid-argument`, reason `csr-key-not-allowed` or `csr-signature-invalid`.
 */
export function verifyMlDsaCsr(csr: Csr): void {
  const refuse = (reason: string, why: string, cause?: unknown): AssayError =>
    new AssayError('invalid-argument', `cannot accept the CSR: ${why}`, { reason, cause })
  const key = attempt(() => parseMlDsaPublicKey(csr.publicKey))
  if (key instanceof Error) throw refuse('csr-key-not-allowed', key.message, key)
  if (attempt(() => parseMlDsaAlgorithm(csr.signatureAlgorithmIdentifier)) !== key.parameterSet) {
    throw refuse('csr-key-not-allowed', `it is not signed by ${key.parameterSet}`)
  }
  if (!isMlDsaSignedBy(key, { message: csr.tbs, signature: csr.signature })) {
    throw refuse('csr-signature-invalid', 'its signature is not by the key it names')
  }
}

function attempt<T>(read: () => T): T | Error {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error
    return error
  }
}
