import { AssayError } from '#base/errors.ts'

/** Why evidence from a TPM does not prove what it is for; explained in `attestation/tpm-refusals.ts`. */
export type EvidenceRefusal =
  | 'endorsement-key-malformed'
  | 'endorsement-key-template'
  | 'endorsement-key-invalid'
  | 'endorsement-key-roca'
  | 'endorsement-certificate-malformed'
  | 'endorsement-certificate-version'
  | 'endorsement-certificate-other-key'
  | 'endorsement-certificate-is-ca'
  | 'endorsement-certificate-key-usage'
  | 'endorsement-certificate-extended-key-usage'
  | 'endorsement-certificate-critical-extension'
  | 'endorsement-certificate-names-no-tpm'
  | 'endorsement-certificate-not-yet-valid'
  | 'endorsement-certificate-expired'
  | 'endorsement-certificate-quirk'
  | 'endorsement-issuer-unknown'
  | 'endorsement-issuer-signature'
  | 'endorsement-issuer-not-ca'
  | 'endorsement-issuer-path-length'
  | 'endorsement-issuer-critical-extension'
  | 'endorsement-issuer-validity'
  | 'attestation-key-malformed'
  | 'attestation-key-type'
  | 'attestation-key-name-algorithm'
  | 'attestation-key-attributes'
  | 'attestation-key-policy'
  | 'attestation-key-scheme'
  | 'attestation-key-invalid'
  | 'quote-signature-malformed'
  | 'quote-signature-algorithm'
  | 'quote-signature-range'
  | 'quote-signature-invalid'
  | 'quote-malformed'
  | 'quote-magic'
  | 'quote-type'
  | 'quote-qualified-signer'
  | 'quote-qualifying-data'
  | 'quote-pcr-banks'
  | 'quote-pcr-selection'
  | 'quote-pcr-count'
  | 'quote-pcr-size'
  | 'quote-pcr-digest'

/**
 * The error a verifier throws: `invalid-argument` for what cannot be read (`…-malformed`), `permission-denied`
 * for what does not prove. `test/swtpm/forgeries-control.test.ts` takes one `throw refusal('…')` out at a time.
 */
export function refusal(
  reason: EvidenceRefusal,
  message: string,
  options?: ErrorOptions,
): AssayError {
  const code = reason.endsWith('-malformed') ? 'invalid-argument' : 'permission-denied'
  return new AssayError(code, message, { ...options, reason })
}
