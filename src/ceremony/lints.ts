import { equalBytes } from '#base/bytes.ts'
import { type Certificate, extensionOid, keyUsageBit, subjectKeyId } from '#pki/certificate.ts'
import { checkKeyStrength, describePublicKey } from '#pki/public-key.ts'
import { signatureAlgorithmFor } from '#pki/signature-algorithm.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'

/** One rule, and how a certificate breaks it. */
export interface Finding {
  readonly rule: string
  /** Undefined: it does not. */
  readonly problem: string | undefined
}

const longestYears = 30
const yearSeconds = 365.25 * 24 * 60 * 60

/**
 * Judges the certificate of a CA that is to stand above servers of a trust domain, signed or not yet: RFC 5280,
 * X509-SVID §4, and what a CA needs so that a server's own CA can stand below it. Signatures are not looked at.
 */
export function lintCaCertificate(certificate: Certificate, of: Above): readonly Finding[] {
  return rules.map(([rule, check]) => ({ rule, problem: check(certificate, of) }))
}

interface Above {
  /** Undefined: it is its own issuer. */
  readonly issuer: Certificate | undefined
  readonly trustDomain: TrustDomain
}

type Check = (certificate: Certificate, above: Above) => string | undefined

const rules: readonly (readonly [string, Check])[] = [
  ['version 3', ({ version }) => (version === 3 ? undefined : `it is version ${version}`)],
  ['the serial number is random', ({ serialNumber }) => serialProblem(BigInt(serialNumber))],
  [
    'the subject has a name, and not the issuer’s',
    ({ subject, issuer }, { issuer: above }) => {
      if (subject.length <= 2) return 'the subject is empty'
      if (above === undefined) return equalBytes(subject, issuer) ? undefined : 'it differs'
      return equalBytes(subject, issuer) ? 'it has its issuer’s name' : undefined
    },
  ],
  [
    'the issuer’s name is that of its certificate',
    ({ issuer }, { issuer: above }) =>
      above === undefined || equalBytes(issuer, above.subject) ? undefined : 'it differs',
  ],
  [`it lasts no longer than ${longestYears} years, and not beyond its issuer`, validityProblem],
  [
    'the key is strong enough',
    ({ publicKey }) => {
      try {
        checkKeyStrength(describePublicKey(publicKey))
        return undefined
      } catch (error) {
        return (error as Error).message
      }
    },
  ],
  [
    'it is signed as the issuer’s key signs',
    ({ publicKey, signatureAlgorithmIdentifier }, { issuer }) => {
      const key = describePublicKey(issuer?.publicKey ?? publicKey)
      const expected = signatureAlgorithmFor(key).identifier
      return equalBytes(signatureAlgorithmIdentifier, expected) ? undefined : 'it is not'
    },
  ],
  [
    'basic constraints are critical, and say that it is a CA',
    (certificate) =>
      certificate.basicConstraints?.isCa === true && isCritical(certificate, 'basicConstraints')
        ? undefined
        : 'they are not',
  ],
  ['path lengths leave room for the servers’ own CAs below', pathLengthProblem],
  [
    'key usage is critical: certificates and revocation lists, nothing else',
    (certificate) =>
      certificate.keyUsage === (keyUsageBit.keyCertSign | keyUsageBit.cRLSign) &&
      isCritical(certificate, 'keyUsage')
        ? undefined
        : 'it is not',
  ],
  [
    'it has no extended key usage',
    ({ extendedKeyUsage }) => (extendedKeyUsage === undefined ? undefined : 'it has'),
  ],
  [
    'its one name is the SPIFFE ID of the trust domain, without a path',
    ({ uris, alternativeNameTags }, { trustDomain }) =>
      alternativeNameTags.length === 1 && uris[0] === spiffeId(trustDomain, '')
        ? undefined
        : `it has ${alternativeNameTags.length}: ${uris.join(', ')}`,
  ],
  [
    'key identifiers are those of the keys',
    ({ publicKey, subjectKeyId: named, authorityKeyId }, { issuer }) => {
      if (named === undefined || !equalBytes(named, subjectKeyId(publicKey))) {
        return 'the subject’s is not'
      }
      if (issuer === undefined) return undefined
      const above = issuer.subjectKeyId
      return authorityKeyId !== undefined &&
        above !== undefined &&
        equalBytes(authorityKeyId, above)
        ? undefined
        : 'the issuer’s is not'
    },
  ],
  [
    'it has no other extensions',
    ({ extensions }) => {
      const other = extensions.filter(({ oid }) => !known.has(oid)).map(({ oid }) => oid)
      return other.length === 0 ? undefined : `it has ${other.join(', ')}`
    },
  ],
  [
    'the issuer is a CA that may sign certificates',
    (_certificate, { issuer }) => caProblem(issuer),
  ],
]

const known: ReadonlySet<string> = new Set([
  extensionOid.subjectKeyId,
  extensionOid.authorityKeyId,
  extensionOid.keyUsage,
  extensionOid.basicConstraints,
  extensionOid.subjectAltName,
])

const isCritical = ({ extensions }: Certificate, name: 'basicConstraints' | 'keyUsage'): boolean =>
  extensions.find(({ oid }) => oid === extensionOid[name])?.critical === true

/** What is random cannot be told from a number, but what people type instead can. */
function serialProblem(serial: bigint): string | undefined {
  const hex = serial.toString(16)
  const bytes = hex.padStart(hex.length + (hex.length % 2), '0').match(/../g) ?? []
  if (bytes.length < 15) return `it has ${bytes.length} bytes`
  return new Set(bytes).size < 8 ? 'it repeats itself: openssl rand -hex 16' : undefined
}

function validityProblem(
  { notBeforeSeconds, notAfterSeconds }: Certificate,
  { issuer }: Above,
): string | undefined {
  if (notAfterSeconds <= notBeforeSeconds) return 'it ends before it begins'
  if (notAfterSeconds - notBeforeSeconds > longestYears * yearSeconds) return 'it lasts longer'
  if (issuer === undefined) return undefined
  if (notBeforeSeconds < issuer.notBeforeSeconds) return 'it begins before its issuer does'
  return notAfterSeconds > issuer.notAfterSeconds ? 'its issuer ends before it does' : undefined
}

function pathLengthProblem(
  { basicConstraints }: Certificate,
  { issuer }: Above,
): string | undefined {
  const own = basicConstraints?.pathLength
  if (own !== undefined && own < 1) return `its own is ${own}, and one CA has to stand below it`
  const above = issuer?.basicConstraints?.pathLength
  if (above !== undefined && above < 2) {
    return `its issuer’s is ${above}, and two CAs have to stand below that`
  }
  return own !== undefined && above !== undefined && own >= above
    ? `its own is ${own}, and its issuer’s ${above}`
    : undefined
}

function caProblem(issuer: Certificate | undefined): string | undefined {
  if (issuer === undefined) return undefined
  if (issuer.basicConstraints?.isCa !== true) return 'it is not a CA'
  return ((issuer.keyUsage ?? 0) & keyUsageBit.keyCertSign) === 0
    ? 'its key usage lacks keyCertSign'
    : undefined
}
