import { equalBytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import {
  type Certificate,
  extendedKeyUsage,
  keyUsageBit,
  parseCertificate,
} from '#pki/certificate.ts'
import {
  type AltSignature,
  alternativeKeyInfo,
  altPublicKey,
  altSignature,
} from '#pq-crypto/alternative-signature.ts'
import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import type { CertificateProfile } from './profile.ts'
import type { CertificateFields } from './template.ts'

/** What a certificate that leaves the authority must turn out to say. */
export interface ExpectedCertificate {
  readonly profile: CertificateProfile
  readonly fields: CertificateFields
  /** DER of the Name. */
  readonly issuerName: Uint8Array
  readonly authorityKeyId: Uint8Array | undefined
  /** Of its post-quantum part; undefined: it has none. */
  readonly alternative?: ExpectedAlternative | undefined
}

/** What a certificate's alternative signature must turn out to be. */
export interface ExpectedAlternative {
  readonly signedWith: MlDsaParameterSet
  /** SubjectPublicKeyInfo of the ML-DSA key the certificate gives a CA; undefined: it gives none. */
  readonly publicKey: Uint8Array | undefined
}

/**
 * Reads an issued certificate back, with the parser and not the template, and compares it with what was
 * meant: SPIFFE ID, other names, key usages, basic constraints, validity, public key, issuer, what
 * alternative key and signature there are. Neither signature is checked here: whoever made it has done it.
 *
 * @throws AssayError `internal`, reason `issued-certificate-wrong`, that names what differs. Nothing of it may
 * leave the authority.
 */
export function verifyIssued(der: Uint8Array, expected: ExpectedCertificate): void {
  const { profile, fields } = expected
  const found = parseCertificate(der)
  const wrong = (what: string): AssayError =>
    new AssayError(
      'internal',
      `cannot release certificate ${found.serialNumber} for ${fields.spiffeId}: its ${what} is not as meant`,
      { reason: 'issued-certificate-wrong' },
    )
  if (found.uris.length !== 1 || found.uris[0] !== fields.spiffeId) throw wrong('SPIFFE ID')
  if (found.alternativeNameTags.length !== 1 + fields.dnsNames.length) throw wrong('list of names')
  if (!fields.dnsNames.every((name, i) => found.dnsNames[i] === name)) throw wrong('DNS names')
  if (found.keyUsage !== keyUsageBits(profile)) throw wrong('key usage')
  if (!isExpectedUsage(profile, found.extendedKeyUsage)) throw wrong('extended key usage')
  if (found.basicConstraints?.isCa !== profile.isCa) throw wrong('basic constraints')
  if (found.basicConstraints.pathLength !== profile.pathLength) throw wrong('path length')
  if (found.notBeforeSeconds !== fields.notBeforeSeconds) throw wrong('start of validity')
  if (found.notAfterSeconds !== fields.notAfterSeconds) throw wrong('end of validity')
  if (!equalBytes(found.publicKey, fields.publicKey)) throw wrong('public key')
  if (!equalBytes(found.issuer, expected.issuerName)) throw wrong('issuer')
  const { authorityKeyId } = expected
  const refersToIssuer =
    authorityKeyId === undefined
      ? found.authorityKeyId === undefined
      : found.authorityKeyId !== undefined && equalBytes(found.authorityKeyId, authorityKeyId)
  if (!refersToIssuer) throw wrong('authority key identifier')
  if (!isExpectedAlternative(found, expected.alternative)) throw wrong('alternative signature')
}

function isExpectedAlternative(
  found: Certificate,
  expected: ExpectedAlternative | undefined,
): boolean {
  let signature: AltSignature | undefined
  try {
    signature = altSignature(found)
    altPublicKey(found)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return false
  }
  const key = alternativeKeyInfo(found)
  const isExpectedKey =
    expected?.publicKey === undefined
      ? key === undefined
      : key !== undefined && equalBytes(key, expected.publicKey)
  return signature?.parameterSet === expected?.signedWith && isExpectedKey
}

function keyUsageBits(profile: CertificateProfile): number {
  let bits = 0
  for (const usage of profile.keyUsage) bits |= keyUsageBit[usage]
  return bits
}

function isExpectedUsage(
  profile: CertificateProfile,
  usages: readonly string[] | undefined,
): boolean {
  if (!profile.tlsServerAndClient) return usages === undefined
  return (
    usages?.length === 2 &&
    usages[0] === extendedKeyUsage.serverAuth &&
    usages[1] === extendedKeyUsage.clientAuth
  )
}
