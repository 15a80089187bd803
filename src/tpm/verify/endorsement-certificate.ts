import { AssayError, messageOf } from '#base/errors.ts'
import { type Certificate, extensionOid, keyUsageBit } from '#pki/certificate.ts'
import { parseName } from '#pki/name.ts'
import { type CertificateQuirk, isSameKey, parseQuirkyCertificate } from './certificate-quirks.ts'
import { type EndorsementAuthorities, verifyEndorsementChain } from './endorsement-authorities.ts'
import type { EndorsementKey } from './endorsement-key.ts'
import { refusal } from './refusal.ts'

/** tcg-kp-EKCertificate (EK Credential Profile §3.5.1). */
const endorsementKeyUsage = '2.23.133.8.1'
/** TPM attributes of the directory name (EK Credential Profile §3.2.9). */
const tpmManufacturer = '2.23.133.2.1'
const tpmModel = '2.23.133.2.2'
const tpmVersion = '2.23.133.2.3'

/** Critical extensions that are understood. */
const knownExtensions: ReadonlySet<string> = new Set([
  extensionOid.keyUsage,
  extensionOid.basicConstraints,
  extensionOid.extendedKeyUsage,
  extensionOid.subjectAltName,
  extensionOid.certificatePolicies,
])

/** What an endorsement certificate is checked against. */
export interface EndorsementCertificatePolicy {
  readonly endorsementKey: EndorsementKey
  /** Undefined: the certificate's form and key are checked, its signature is not, and nothing it says is true. */
  readonly authorities: EndorsementAuthorities | undefined
  /** Unix time at which the certificate and its issuers must be valid; undefined: they need not be. */
  readonly validAtSeconds: number | undefined
  readonly toleratedQuirks: ReadonlySet<CertificateQuirk>
}

/** What the maker of a TPM says of it. */
export interface VerifiedEndorsementCertificate {
  readonly certificate: Certificate
  /** `id:494E5458` and the like: the vendor ID as the certificate spells it. */
  readonly manufacturer: string
  readonly model: string
  readonly version: string
  /** Sorted. */
  readonly quirks: readonly CertificateQuirk[]
}

/**
 * Checks an endorsement certificate, `chain[0]`, with the intermediates a node presents after it
 * (EK Credential Profile §3, RFC 5280 §6):
 *
 * 1. X.509 version 3, in DER but for named quirks, its key the presented endorsement key;
 * 2. not a CA; key usage for encryption (RSA) or key agreement (ECC); extended key usage, where there is one,
 *    for endorsement; no critical extension that is not understood; a TPM named in the alternative names;
 * 3. within its validity, if that is asked for;
 * 4. a chain to an installed authority;
 * 5. no quirk but those tolerated.
 *
 * @throws AssayError with an {@link EvidenceRefusal}.
 */
export function verifyEndorsementCertificate(
  chain: readonly [Uint8Array, ...Uint8Array[]],
  policy: EndorsementCertificatePolicy,
): VerifiedEndorsementCertificate {
  try {
    return verifyChain(chain, policy)
  } catch (cause) {
    if (cause instanceof AssayError) throw cause
    throw refusal(
      'endorsement-certificate-malformed',
      `cannot read the endorsement certificate: ${messageOf(cause)}`,
      { cause },
    )
  }
}

function verifyChain(
  [first, ...rest]: readonly [Uint8Array, ...Uint8Array[]],
  { endorsementKey, authorities, validAtSeconds, toleratedQuirks }: EndorsementCertificatePolicy,
): VerifiedEndorsementCertificate {
  const quirks = new Set<CertificateQuirk>()
  const certificate = parseQuirkyCertificate(first, quirks)
  const intermediates = rest.map((der) => parseQuirkyCertificate(der, quirks))
  verifyPurpose(certificate, endorsementKey, quirks)
  if (validAtSeconds !== undefined) verifyValidity(certificate, validAtSeconds)
  if (authorities !== undefined)
    verifyEndorsementChain(certificate, { authorities, intermediates, validAtSeconds }, quirks)
  const refused = [...quirks].filter((quirk) => !toleratedQuirks.has(quirk))
  if (refused.length > 0)
    throw refusal(
      'endorsement-certificate-quirk',
      `cannot accept the endorsement certificate: it has the quirk ${refused.join(', ')}, which is not tolerated`,
    )
  return { certificate, ...tpmNames(certificate), quirks: [...quirks].sort() }
}

function verifyPurpose(
  certificate: Certificate,
  { area, subjectPublicKeyInfo }: EndorsementKey,
  quirks: Set<CertificateQuirk>,
): void {
  const { version, keyUsage, extendedKeyUsage, extensions } = certificate
  if (version !== 3)
    throw refusal(
      'endorsement-certificate-version',
      `cannot accept the endorsement certificate: it is X.509 version ${version}, not 3`,
    )
  if (!isSameKey(certificate.publicKey, subjectPublicKeyInfo, quirks))
    throw refusal(
      'endorsement-certificate-other-key',
      'cannot accept the endorsement certificate: it is for another key than the endorsement key',
    )
  if (certificate.basicConstraints?.isCa === true)
    throw refusal(
      'endorsement-certificate-is-ca',
      'cannot accept the endorsement certificate: it is a CA certificate',
    )
  const wanted = area.type === 'rsa' ? keyUsageBit.keyEncipherment : keyUsageBit.keyAgreement
  if (keyUsage === undefined) quirks.add('key-usage-missing')
  else if ((keyUsage & wanted) === 0)
    throw refusal(
      'endorsement-certificate-key-usage',
      `cannot accept the endorsement certificate: its key usage is not ${area.type === 'rsa' ? 'keyEncipherment' : 'keyAgreement'}`,
    )
  if (extendedKeyUsage === undefined) quirks.add('extended-key-usage-missing')
  else if (!extendedKeyUsage.includes(endorsementKeyUsage))
    throw refusal(
      'endorsement-certificate-extended-key-usage',
      `cannot accept the endorsement certificate: its extended key usage lacks ${endorsementKeyUsage}, tcg-kp-EKCertificate`,
    )
  const unknown = extensions.find(({ oid, critical }) => critical && !knownExtensions.has(oid))
  if (unknown !== undefined)
    throw refusal(
      'endorsement-certificate-critical-extension',
      `cannot accept the endorsement certificate: it has the critical extension ${unknown.oid}, which is not understood`,
    )
  const { manufacturer, model, version: tpm } = tpmNames(certificate)
  if (manufacturer === '' || model === '' || tpm === '')
    throw refusal(
      'endorsement-certificate-names-no-tpm',
      'cannot accept the endorsement certificate: its alternative names do not give manufacturer, model and version of a TPM',
    )
}

function verifyValidity(certificate: Certificate, atSeconds: number): void {
  if (atSeconds < certificate.notBeforeSeconds)
    throw refusal(
      'endorsement-certificate-not-yet-valid',
      'cannot accept the endorsement certificate: it is not valid yet',
    )
  if (atSeconds > certificate.notAfterSeconds)
    throw refusal(
      'endorsement-certificate-expired',
      'cannot accept the endorsement certificate: it has expired',
    )
}

/** The TPM's attributes out of the directory names; empty where there is none. */
function tpmNames({
  directoryNames,
}: Certificate): Pick<VerifiedEndorsementCertificate, 'manufacturer' | 'model' | 'version'> {
  const attributes = new Map(
    directoryNames.flatMap((name) =>
      parseName(name, { lenient: true }).map(({ type, value }) => [type, value] as const),
    ),
  )
  return {
    manufacturer: attributes.get(tpmManufacturer) ?? '',
    model: attributes.get(tpmModel) ?? '',
    version: attributes.get(tpmVersion) ?? '',
  }
}
