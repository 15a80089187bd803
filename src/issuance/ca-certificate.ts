import { type Certificate, parseCertificate, verifyCertificateSignature } from '#pki/certificate.ts'
import { attributeType, encodeName, type NameAttribute } from '#pki/name.ts'
import { describePublicKey } from '#pki/public-key.ts'
import { signatureAlgorithmFor } from '#pki/signature-algorithm.ts'
import {
  altAlgorithmExtension,
  altPublicKeyExtension,
  withAltSignature,
} from '#pq-crypto/alternative-signature.ts'
import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { caProfile } from './profile.ts'
import { serialNumberText } from './serial-numbers.ts'
import { CertificateTemplate } from './template.ts'
import { verifyIssued } from './verify-issued.ts'

/** What the certificate of a CA of a trust domain is to say. */
export interface CaCertificateRequest {
  readonly trustDomain: TrustDomain
  readonly subject: readonly NameAttribute[]
  readonly serialNumber: Uint8Array
  readonly notBeforeSeconds: number
  readonly notAfterSeconds: number
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** How many CAs may stand below it; undefined: any number. */
  readonly pathLength?: number | undefined
  /** Its post-quantum part; undefined: it has none. */
  readonly alternative?: CaAlternative | undefined
}

/** The ML-DSA key of a CA, and what the one above it, or itself, signs with. */
export interface CaAlternative {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  readonly signedWith: MlDsaParameterSet
}

/** A certificate that is written and not signed yet. */
export interface CaCertificateDraft {
  /** The TBSCertificate (RFC 5280 §4.1), DER: what is to be signed. */
  readonly toBeSigned: Uint8Array
  /** The same draft with the alternative signature in it, over `alternativeMessage(toBeSigned)`. */
  withAltSignature(signature: Uint8Array): CaCertificateDraft
  /** The certificate without a signature, read by the parser: for people, and to be judged before it is signed. */
  readonly unsigned: Certificate
  /**
   * The certificate with `signature`, as X.509 has it (ECDSA in DER), read back and compared with the request,
   * its signature checked with the issuer's key.
   *
   * @throws AssayError when anything of it is not as meant: then it must not be used.
   */
  finish(signature: Uint8Array): Certificate
}

/** C=US, O=SPIFFE, as spire-server has it when no `ca_subject` is configured. */
export const defaultCaSubject: readonly NameAttribute[] = [
  { type: attributeType.country, value: 'US' },
  { type: attributeType.organization, value: 'SPIFFE' },
]

/**
 * Writes the certificate of a CA whose SPIFFE ID is `spiffe://<trust domain>` (X509-SVID §4), issued by `issuer` or,
 * without one, by itself.
 *
 * @throws RangeError when the issuer has no subject key identifier to refer to, or its key cannot sign certificates.
 */
export function draftCaCertificate(
  request: CaCertificateRequest,
  issuer?: Certificate,
): CaCertificateDraft {
  const { notBeforeSeconds, notAfterSeconds, publicKey, trustDomain, ...rest } = request
  const { subject, serialNumber, alternative } = rest
  if (issuer !== undefined && issuer.subjectKeyId === undefined) {
    throw new RangeError(
      `cannot sign with CA ${issuer.serialNumber}: it has no subject key identifier`,
    )
  }
  const issuerKey = issuer?.publicKey ?? publicKey
  const issuerName = issuer?.subject ?? encodeName(subject)
  const authorityKeyId = issuer?.subjectKeyId
  const profile = caProfile(issuer === undefined ? 'root' : 'intermediate', request.pathLength)
  const template = new CertificateTemplate(profile, {
    issuer: {
      name: issuerName,
      keyId: authorityKeyId,
      signatureAlgorithm: signatureAlgorithmFor(describePublicKey(issuerKey)).identifier,
    },
    subject,
    ...(alternative && {
      lastExtensions: [
        altPublicKeyExtension(alternative.publicKey),
        altAlgorithmExtension(alternative.signedWith),
      ],
    }),
  })
  const fields = {
    serialNumber,
    notBeforeSeconds,
    notAfterSeconds,
    spiffeId: spiffeId(trustDomain, ''),
    dnsNames: [],
    publicKey,
  }
  const draft = (toBeSigned: Uint8Array): CaCertificateDraft => ({
    toBeSigned,
    withAltSignature: (signature) => draft(withAltSignature(toBeSigned, signature)),
    unsigned: parseCertificate(template.certificate(toBeSigned, new Uint8Array())),
    finish(signature) {
      const der = template.certificate(toBeSigned, signature)
      verifyIssued(der, { profile, fields, issuerName, authorityKeyId, alternative })
      const certificate = parseCertificate(der)
      verifyCertificateSignature(certificate, issuerKey)
      return certificate
    },
  })
  return draft(template.toBeSigned(fields))
}

/** `subject` with the certificate's serial number as an attribute, so that no other CA has its name; or as it is when it has one. */
export function withSerialNumber(
  subject: readonly NameAttribute[],
  serialNumber: Uint8Array,
): readonly NameAttribute[] {
  if (subject.some(({ type }) => type === attributeType.serialNumber)) return subject
  return [...subject, { type: attributeType.serialNumber, value: serialNumberText(serialNumber) }]
}
