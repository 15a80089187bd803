import { type Certificate, extendedKeyUsage, keyUsageBit } from '#pki/certificate.ts'
import { nameText, parseName } from '#pki/name.ts'
import { describePublicKey } from '#pki/public-key.ts'
import { altPublicKey, altSignature } from '#pq-crypto/alternative-signature.ts'
import { parseMlDsaPublicKey } from '#pq-crypto/ml-dsa.ts'

/** Extensions by the names people know them by (RFC 5280 §4.2, ITU-T X.509 (10/2019) §9.8). */
const extensionNames: Readonly<Record<string, string>> = {
  '2.5.29.14': 'subject key identifier',
  '2.5.29.15': 'key usage',
  '2.5.29.17': 'subject alternative name',
  '2.5.29.19': 'basic constraints',
  '2.5.29.30': 'name constraints',
  '2.5.29.31': 'CRL distribution points',
  '2.5.29.32': 'certificate policies',
  '2.5.29.35': 'authority key identifier',
  '2.5.29.37': 'extended key usage',
  '2.5.29.72': 'subject alternative public key',
  '2.5.29.73': 'alternative signature algorithm',
  '2.5.29.74': 'alternative signature value',
  '1.3.6.1.5.5.7.1.1': 'authority information access',
}

const signatureNames: Readonly<Record<string, string>> = {
  '1.2.840.10045.4.3.2': 'ECDSA with SHA-256',
  '1.2.840.10045.4.3.3': 'ECDSA with SHA-384',
  '1.2.840.10045.4.3.4': 'ECDSA with SHA-512',
  '1.2.840.113549.1.1.10': 'RSASSA-PSS',
  '1.2.840.113549.1.1.11': 'RSA with SHA-256',
  '1.2.840.113549.1.1.12': 'RSA with SHA-384',
  '1.2.840.113549.1.1.13': 'RSA with SHA-512',
  '1.3.101.112': 'Ed25519',
  '2.16.840.1.101.3.4.3.17': 'ml-dsa-44',
  '2.16.840.1.101.3.4.3.18': 'ml-dsa-65',
  '2.16.840.1.101.3.4.3.19': 'ml-dsa-87',
}

const purposeNames: Readonly<Record<string, string>> = {
  [extendedKeyUsage.any]: 'any',
  [extendedKeyUsage.serverAuth]: 'TLS server',
  [extendedKeyUsage.clientAuth]: 'TLS client',
}

/** What a certificate says, in words and without a judgement. */
export interface CertificateWords {
  /** Its URIs; an X.509-SVID has one. */
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  readonly subject: string
  readonly issuer: string
  /** Decimal. */
  readonly serialNumber: string
  /** `P-256`, `RSA 2048`, `ml-dsa-44`. */
  readonly key: string
  readonly signedWith: string
  readonly isCa: boolean
  readonly usages: readonly string[]
  readonly purposes: readonly string[]
  readonly extensions: readonly {
    readonly id: string
    readonly name: string
    readonly critical: boolean
  }[]
  /** Parameter sets of the post-quantum key and signature, `none`, or why it cannot be read. */
  readonly pqKey: string
  readonly pqSignature: string
  readonly bytes: number
}

/** Puts a certificate into words. Nothing about it is verified. */
export function certificateWords(certificate: Certificate): CertificateWords {
  const { extensions, keyUsage = 0, extendedKeyUsage: purposes = [] } = certificate
  return {
    uris: certificate.uris,
    dnsNames: certificate.dnsNames,
    subject: certificate.subjectText,
    issuer: nameText(parseName(certificate.issuer)),
    serialNumber: certificate.serialNumber,
    key: keyText(certificate.publicKey),
    signedWith: signatureNames[certificate.signatureAlgorithm] ?? certificate.signatureAlgorithm,
    isCa: certificate.basicConstraints?.isCa === true,
    usages: Object.entries(keyUsageBit)
      .filter(([, bit]) => (keyUsage & bit) !== 0)
      .map(([name]) => name),
    purposes: purposes.map((id) => purposeNames[id] ?? id),
    extensions: extensions.map(({ oid, critical }) => ({
      id: oid,
      name: extensionNames[oid] ?? oid,
      critical,
    })),
    pqKey: readable(() => altPublicKey(certificate)?.parameterSet),
    pqSignature: readable(() => altSignature(certificate)?.parameterSet),
    bytes: certificate.raw.length,
  }
}

function keyText(spki: Uint8Array): string {
  try {
    const key = describePublicKey(spki)
    switch (key.type) {
      case 'ec':
        return key.curve
      case 'rsa':
        return `RSA ${key.modulusBits}`
      case 'ed25519':
        return 'Ed25519'
      case 'other':
        return isMlDsa(key.algorithm) ? parseMlDsaPublicKey(spki).parameterSet : key.algorithm
    }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return `cannot be read: ${error.message}`
  }
}

const isMlDsa = (algorithm: string): boolean =>
  signatureNames[algorithm]?.startsWith('ml-dsa') === true

function readable(read: () => string | undefined): string {
  try {
    return read() ?? 'none'
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return `cannot be read: ${error.message}`
  }
}
