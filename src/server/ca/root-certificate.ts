import { type Certificate, parseCertificate, verifyCertificateSignature } from '#pki/certificate.ts'
import { attributeType, encodeName, type NameAttribute } from '#pki/name.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { SigningKey } from '../plugin/key-manager/key-manager.ts'
import { rootProfile } from './profile.ts'
import { serialNumberText } from './serial-numbers.ts'
import { signForX509 } from './signer.ts'
import { backdateSeconds, CertificateTemplate } from './template.ts'
import { verifyIssued } from './verify-issued.ts'

/** What a root certificate is to say. */
export interface RootCertificateOptions {
  readonly trustDomain: TrustDomain
  /** Without a serialNumber attribute it gets the certificate's serial number, so that every root has its own name. */
  readonly subject: readonly NameAttribute[]
  readonly serialNumber: Uint8Array
  readonly nowSeconds: number
  readonly ttlSeconds: number
}

/** C=US, O=SPIFFE, as spire-server has it when no `ca_subject` is configured. */
export const defaultCaSubject: readonly NameAttribute[] = [
  { type: attributeType.country, value: 'US' },
  { type: attributeType.organization, value: 'SPIFFE' },
]

/** Makes the self-signed certificate of a new authority, whose SPIFFE ID is `spiffe://<trust domain>`. */
export async function issueRootCertificate(
  key: SigningKey,
  options: RootCertificateOptions,
): Promise<Certificate> {
  const { serialNumber, nowSeconds, ttlSeconds, trustDomain } = options
  const named = options.subject.some(({ type }) => type === attributeType.serialNumber)
  const subject = named
    ? options.subject
    : [
        ...options.subject,
        { type: attributeType.serialNumber, value: serialNumberText(serialNumber) },
      ]
  const issuer = { name: encodeName(subject), keyId: undefined, keyType: key.type }
  const template = new CertificateTemplate(rootProfile, { issuer, subject })
  const fields = {
    serialNumber,
    notBeforeSeconds: nowSeconds - backdateSeconds,
    notAfterSeconds: nowSeconds + ttlSeconds,
    spiffeId: spiffeId(trustDomain, ''),
    dnsNames: [],
    publicKey: new Uint8Array(key.publicKey.export({ format: 'der', type: 'spki' })),
  }
  const toBeSigned = template.toBeSigned(fields)
  const der = template.certificate(toBeSigned, await signForX509(key, toBeSigned))
  verifyIssued(der, {
    profile: rootProfile,
    fields,
    issuerName: issuer.name,
    authorityKeyId: undefined,
  })
  const certificate = parseCertificate(der)
  verifyCertificateSignature(certificate, key.publicKey)
  return certificate
}
