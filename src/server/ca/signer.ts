import { equalBytes } from '#base/bytes.ts'
import {
  agentProfile,
  type CertificateProfile,
  pqWorkloadProfile,
  serverProfile,
  workloadProfile,
} from '#issuance/profile.ts'
import { CertificateTemplate } from '#issuance/template.ts'
import { type Certificate, extensionOid } from '#pki/certificate.ts'
import { rawToDerSignature } from '#pki/ecdsa.ts'
import { attributeType, type NameAttribute } from '#pki/name.ts'
import { describePublicKey } from '#pki/public-key.ts'
import { signatureAlgorithmFor } from '#pki/signature-algorithm.ts'
import {
  altAlgorithmExtension,
  alternativeKeyInfo,
  alternativeMessage,
  withAltSignature,
} from '#pq-crypto/alternative-signature.ts'
import { mlDsaAlgorithm } from '#pq-crypto/ml-dsa.ts'
import type { AlternativeKey, SigningKey } from '../plugin/key-manager/key-manager.ts'

/** An X.509 authority that can sign: its certificate, its key, and a template for each kind of leaf. */
export interface X509Signer {
  readonly certificate: Certificate
  /** What is handed out after each leaf, DER: the CAs below the root, the authority's own first. */
  readonly chain: readonly Uint8Array[]
  /** Subject key identifier of the root, lower-case hex: what a bundle and agents know the authority by. */
  readonly rootId: string
  /** The authority and all above it, the root last. */
  readonly path: readonly Certificate[]
  /** The same when one of them constrains names; empty when none does. */
  readonly constrainedBy: readonly Certificate[]
  readonly key: SigningKey
  readonly templates: ReadonlyMap<CertificateProfile, CertificateTemplate>
  /** The post-quantum key in the certificate, if it has one: it then signs everything too. */
  readonly alternative: AlternativeKey | undefined
  /** The same key as an authority of its own, for SVIDs that are signed by it alone; undefined: it is none. */
  readonly pq: PqX509Signer | undefined
}

/** A post-quantum key as an X.509 authority, with its certificate in the post-quantum bundle. */
export interface PqX509Signer {
  readonly certificate: Certificate
  readonly key: AlternativeKey
  readonly template: CertificateTemplate
}

/** A JWT authority that can sign. */
export interface JwtSigner {
  /** The `kid`. */
  readonly keyId: string
  readonly key: SigningKey
  readonly expiresAtSeconds: number
  /** The post-quantum key beside it, and its `kid` in the post-quantum bundle; undefined: there is none. */
  readonly pq: { readonly keyId: string; readonly key: AlternativeKey } | undefined
}

/** Subject of every leaf, before the CommonName that a DNS name adds: C=US, O=SPIRE, as spire-server has it. */
const leafSubject: readonly NameAttribute[] = [
  { type: attributeType.country, value: 'US' },
  { type: attributeType.organization, value: 'SPIRE' },
]

/**
 * `key` must be the one `certificate` certifies; `above` is the path from who issued it to the root, empty when it is
 * the root itself; `pq` the certificate of the post-quantum key beside `key`.
 *
 * @throws RangeError when the certificate has no subject key identifier to refer to.
 */
export function newX509Signer(
  certificate: Certificate,
  key: SigningKey,
  {
    above = [],
    pq,
  }: { readonly above?: readonly Certificate[]; readonly pq?: Certificate | undefined } = {},
): X509Signer {
  // Referred to by what it says of itself: a verifier compares the two extensions, whatever they were made of.
  const keyId = certificate.subjectKeyId
  if (keyId === undefined) {
    throw new RangeError(
      `cannot sign with authority ${certificate.serialNumber}: it has no subject key identifier`,
    )
  }
  const { identifier } = signatureAlgorithmFor(describePublicKey(certificate.publicKey))
  const issuer = { name: certificate.subject, keyId, signatureAlgorithm: identifier }
  const alternative = alternativeOf(certificate, key)
  const lastExtensions = alternative ? [altAlgorithmExtension(alternative.parameterSet)] : []
  const template = (profile: CertificateProfile): [CertificateProfile, CertificateTemplate] => [
    profile,
    new CertificateTemplate(profile, { issuer, subject: leafSubject, lastExtensions }),
  ]
  const path = [certificate, ...above]
  return {
    certificate,
    rootId: (path.at(-1)?.subjectKeyId ?? keyId).toHex(),
    chain: path.slice(0, -1).map(({ raw }) => raw),
    path,
    constrainedBy: path.some(constrainsNames) ? path : [],
    key,
    templates: new Map([workloadProfile, agentProfile, serverProfile].map(template)),
    alternative,
    pq: pq && alternative && newPqX509Signer(pq, alternative),
  }
}

function newPqX509Signer(certificate: Certificate, key: AlternativeKey): PqX509Signer {
  const template = new CertificateTemplate(pqWorkloadProfile, {
    issuer: {
      name: certificate.subject,
      keyId: certificate.subjectKeyId,
      signatureAlgorithm: mlDsaAlgorithm[key.parameterSet],
    },
    subject: leafSubject,
  })
  return { certificate, key, template }
}

const constrainsNames = ({ extensions }: Certificate): boolean =>
  extensions.some(({ oid }) => oid === extensionOid.nameConstraints)

/**
 * What is signed classically: `toBeSigned`, with the alternative signature in it where there is a key for one. The
 * classical key signs last, over everything.
 */
export async function withAlternative(
  toBeSigned: Uint8Array,
  alternative: AlternativeKey | undefined,
): Promise<Uint8Array> {
  if (alternative === undefined) return toBeSigned
  return withAltSignature(toBeSigned, await alternative.sign(alternativeMessage(toBeSigned)))
}

/**
 * The ML-DSA key that `certificate` gives the authority, or undefined when it gives none.
 *
 * @throws RangeError when it gives one that is not beside `key`: what it signed would be refused.
 */
function alternativeOf(certificate: Certificate, key: SigningKey): AlternativeKey | undefined {
  const { alternative } = key
  const told = alternativeKeyInfo(certificate)
  if (told === undefined) return undefined
  if (alternative !== undefined && equalBytes(told, alternative.publicKey)) return alternative
  throw new RangeError(
    `cannot sign with authority ${certificate.serialNumber}: its post-quantum key is not beside ${key.id}`,
  )
}

/** A signature over `message` as X.509 has it: DER for ECDSA, as it is for RSA. */
export async function signForX509(key: SigningKey, message: Uint8Array): Promise<Uint8Array> {
  const signature = await key.sign(message)
  return key.type === 'ec-p256' || key.type === 'ec-p384' ? rawToDerSignature(signature) : signature
}
