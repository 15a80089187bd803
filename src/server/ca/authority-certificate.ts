import { AssayError } from '#base/errors.ts'
import { draftCaCertificate, withSerialNumber } from '#issuance/ca-certificate.ts'
import { caProfile, workloadProfile } from '#issuance/profile.ts'
import { backdateSeconds, CertificateTemplate } from '#issuance/template.ts'
import { verifyIssued } from '#issuance/verify-issued.ts'
import { type Certificate, extendedKeyUsage, parseCertificate } from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import { encodeName, type NameAttribute } from '#pki/name.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { alternativeMessage } from '#pq-crypto/alternative-signature.ts'
import { mlDsaAlgorithm } from '#pq-crypto/ml-dsa.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AlternativeKey, SigningKey } from '../plugin/key-manager/key-manager.ts'
import type { UpstreamCa } from '../plugin/upstream-authority/upstream-authority.ts'
import { newX509Signer, signForX509 } from './signer.ts'

/** What the certificate of a new authority is to say. */
export interface AuthorityCertificateOptions {
  readonly trustDomain: TrustDomain
  /** Without a serialNumber attribute it gets the certificate's serial number. */
  readonly subject: readonly NameAttribute[]
  readonly serialNumber: Uint8Array
  readonly nowSeconds: number
  readonly ttlSeconds: number
}

/**
 * Makes the self-signed certificate of a new authority, whose SPIFFE ID is `spiffe://<trust domain>`. Where the key has
 * a post-quantum one beside it, the certificate carries that, and its signature.
 */
export async function issueRootCertificate(
  key: SigningKey,
  { nowSeconds, ttlSeconds, ...options }: AuthorityCertificateOptions,
): Promise<Certificate> {
  const { alternative } = key
  const draft = draftCaCertificate({
    ...options,
    subject: withSerialNumber(options.subject, options.serialNumber),
    notBeforeSeconds: nowSeconds - backdateSeconds,
    notAfterSeconds: nowSeconds + ttlSeconds,
    publicKey: new Uint8Array(key.publicKey.export({ format: 'der', type: 'spki' })),
    alternative: alternative && {
      publicKey: alternative.publicKey,
      signedWith: alternative.parameterSet,
    },
  })
  if (alternative === undefined) return draft.finish(await signForX509(key, draft.toBeSigned))
  const signature = await alternative.sign(alternativeMessage(draft.toBeSigned))
  const whole = draft.withAltSignature(signature)
  return whole.finish(await signForX509(key, whole.toBeSigned))
}

/**
 * Makes the self-signed certificate of an ML-DSA key as an authority of its own (RFC 9881), for the post-quantum bundle.
 * Its name differs from that of the classical authority by the serial number in it.
 */
export async function issuePqRootCertificate(
  key: AlternativeKey,
  { nowSeconds, ttlSeconds, trustDomain, subject, serialNumber }: AuthorityCertificateOptions,
): Promise<Certificate> {
  const name = withSerialNumber(subject, serialNumber)
  const profile = caProfile('root')
  const issuerName = encodeName(name)
  const template = new CertificateTemplate(profile, {
    issuer: {
      name: issuerName,
      keyId: undefined,
      signatureAlgorithm: mlDsaAlgorithm[key.parameterSet],
    },
    subject: name,
  })
  const fields = {
    serialNumber,
    notBeforeSeconds: nowSeconds - backdateSeconds,
    notAfterSeconds: nowSeconds + ttlSeconds,
    spiffeId: spiffeId(trustDomain, ''),
    dnsNames: [],
    publicKey: key.publicKey,
  }
  const toBeSigned = template.toBeSigned(fields)
  const der = template.certificate(toBeSigned, await key.sign(toBeSigned))
  verifyIssued(der, { profile, fields, issuerName, authorityKeyId: undefined })
  return parseCertificate(der)
}

/**
 * Makes the certificate of a new authority below `ca`, which ends no later than anything above it.
 *
 * Before it is used it must verify up to the root together with a leaf: one is signed for a key that nobody has, so
 * that whatever a verifier would object to shows here and not on every workload.
 *
 * @throws AssayError `unavailable` when the upstream's key cannot sign now; `failed-precondition`, reason
 * `upstream-unusable`, when what is signed below it would not be accepted.
 */
export async function issueIntermediateCertificate(
  key: SigningKey,
  ca: UpstreamCa,
  { nowSeconds, ttlSeconds, ...options }: AuthorityCertificateOptions,
): Promise<Certificate> {
  const [issuer] = ca.path
  const draft = draftCaCertificate(
    {
      ...options,
      subject: withSerialNumber(options.subject, options.serialNumber),
      notBeforeSeconds: nowSeconds - backdateSeconds,
      notAfterSeconds: Math.min(nowSeconds + ttlSeconds, ...ca.path.map((c) => c.notAfterSeconds)),
      publicKey: new Uint8Array(key.publicKey.export({ format: 'der', type: 'spki' })),
    },
    issuer,
  )
  const certificate = draft.finish(await ca.sign(draft.toBeSigned))
  try {
    const leaf = parseCertificate(await signProbe(certificate, { key, ...options, nowSeconds }))
    const intermediates = [certificate, ...ca.path.slice(0, -1)]
    const roots = ca.path.slice(-1)
    for (const purpose of [extendedKeyUsage.serverAuth, extendedKeyUsage.clientAuth]) {
      verifyChain({ leaf, intermediates, roots, nowSeconds, purpose })
    }
  } catch (cause) {
    if (!(cause instanceof AssayError) || cause.code !== 'unauthenticated') throw cause
    throw new AssayError(
      'failed-precondition',
      `cannot use the upstream authority: what is signed below it is not accepted: ${cause.message}`,
      { reason: 'upstream-unusable', cause },
    )
  }
  return certificate
}

/** A leaf of `certificate` that identifies nobody: its private key is thrown away. */
async function signProbe(
  certificate: Certificate,
  of: {
    readonly key: SigningKey
    readonly trustDomain: TrustDomain
    readonly serialNumber: Uint8Array
    readonly nowSeconds: number
  },
): Promise<Uint8Array> {
  const template = newX509Signer(certificate, of.key).templates.get(workloadProfile)
  if (template === undefined) throw new TypeError('no template for workloads')
  const toBeSigned = template.toBeSigned({
    serialNumber: of.serialNumber,
    notBeforeSeconds: of.nowSeconds,
    notAfterSeconds: of.nowSeconds + 1,
    spiffeId: spiffeId(of.trustDomain, '/probe'),
    dnsNames: [],
    publicKey: generateEcKeyPair('ec-p256').publicKey,
  })
  return template.certificate(toBeSigned, await signForX509(of.key, toBeSigned))
}
