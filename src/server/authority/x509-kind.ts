import { equalBytes } from '#base/bytes.ts'
import type { Random } from '#base/random.ts'
import { newSerialNumbers } from '#issuance/serial-numbers.ts'
import { type Certificate, parseCertificate, subjectKeyId } from '#pki/certificate.ts'
import type { NameAttribute } from '#pki/name.ts'
import { alternativeKeyInfo, altPublicKey } from '#pq-crypto/alternative-signature.ts'
import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import type { Bundle, X509Authority } from '#spiffe/bundle.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import {
  issueIntermediateCertificate,
  issuePqRootCertificate,
  issueRootCertificate,
} from '../ca/authority-certificate.ts'
import type { KeyType, SigningKey } from '../plugin/key-manager/key-manager.ts'
import type { AuthorityKind, PublishedAuthority } from './authority-kind.ts'
import type { IssuedAuthority, UpstreamChain } from './journal.ts'
import { publicKeyInfo } from './public-key-info.ts'
import type { Upstream } from './upstream.ts'

/**
 * X.509 authorities, named by their subject key identifiers. Each is a CA certificate: self-signed and itself in the
 * bundle, or certified by the upstream authority, and then it is the root above it that is in the bundle.
 */
export function newX509Kind(options: {
  readonly trustDomain: TrustDomain
  readonly keyType: KeyType
  readonly ttlSeconds: number
  readonly subject: readonly NameAttribute[]
  readonly random: Random
  readonly upstream: Upstream | undefined
  /** Of the post-quantum keys that are made beside new ones; undefined: none are. */
  readonly pqParameterSet: MlDsaParameterSet | undefined
}): AuthorityKind {
  const { trustDomain, keyType, ttlSeconds, subject, upstream, pqParameterSet } = options
  const newSerialNumber = newSerialNumbers(options.random)
  return {
    name: 'x509',
    title: 'X.509 authority',
    keyPrefix: 'x509-ca',
    keyType,
    async issue(key, nowSeconds) {
      const wanted = {
        trustDomain,
        subject,
        serialNumber: newSerialNumber(),
        nowSeconds,
        ttlSeconds,
      }
      if (upstream === undefined) {
        const { alternative } = key
        const issued = issuedAs(await issueRootCertificate(key, wanted), nowSeconds)
        if (alternative === undefined) return issued
        const own = { ...wanted, serialNumber: newSerialNumber() }
        return { ...issued, pq: (await issuePqRootCertificate(alternative, own)).raw }
      }
      const ca = await upstream.look()
      const certificate = await issueIntermediateCertificate(key, ca, wanted)
      return issuedAs(certificate, nowSeconds, chainOf(ca.path))
    },
    fits(issued, key) {
      const certificate = parseCertificate(issued.content)
      return (
        certificate.uris[0] === spiffeId(trustDomain, '') &&
        equalBytes(certificate.publicKey, publicKeyInfo(key)) &&
        hasAlternativeOf(certificate, key) &&
        (issued.pq === undefined || isForAlternative(parseCertificate(issued.pq).publicKey, key))
      )
    },
    isOutdated: (issued) =>
      (issued.upstream === undefined) !== (upstream === undefined) ||
      parameterSetOf(issued.content) !== pqParameterSet ||
      // One of before there was a post-quantum bundle.
      (issued.pq === undefined) !== (pqParameterSet === undefined),
    wouldOutlast: ({ expiresAtSeconds }) =>
      upstream?.endSeconds === undefined || upstream.endSeconds > expiresAtSeconds,
    publishedId: ({ authorityId, upstream: chain }) =>
      chain === undefined ? authorityId : describe(chain.root).authorityId,
    published: (bundle) => bundle.x509Authorities.map(published),
    withAuthority: (bundle, { content, upstream: chain, pq }) =>
      withX509Authority(bundle, chain?.root ?? content, pq),
    withTaint: (bundle, authorityId) => ({
      ...bundle,
      x509Authorities: bundle.x509Authorities.map((authority) =>
        published(authority).authorityId === authorityId
          ? { ...authority, tainted: true }
          : authority,
      ),
    }),
    without: (bundle, isGone) => ({
      ...bundle,
      x509Authorities: bundle.x509Authorities.filter((authority) => !isGone(published(authority))),
    }),
  }
}

/** The authorities of a bundle that have a post-quantum key, by their ids, with its parameter set. */
export const hybridAuthorities = ({
  x509Authorities,
}: Bundle): ReadonlyMap<string, MlDsaParameterSet> =>
  new Map(
    x509Authorities.flatMap(({ certificate }) => {
      const set = parameterSetOf(certificate)
      return set === undefined ? [] : [[describe(certificate).authorityId, set]]
    }),
  )

/** `bundle` with the certificate (DER) as an authority, and that of its ML-DSA key; itself when it has it. */
export function withX509Authority(
  bundle: Bundle,
  certificate: Uint8Array,
  pq?: Uint8Array,
): Bundle {
  const isThere = bundle.x509Authorities.some((authority) =>
    equalBytes(authority.certificate, certificate),
  )
  if (isThere) return bundle
  return {
    ...bundle,
    x509Authorities: [
      ...bundle.x509Authorities,
      { certificate, tainted: false, ...(pq !== undefined && { pq }) },
    ],
  }
}

function issuedAs(
  certificate: Certificate,
  issuedAtSeconds: number,
  upstream?: UpstreamChain,
): IssuedAuthority {
  return {
    authorityId: describe(certificate.raw).authorityId,
    content: certificate.raw,
    issuedAtSeconds,
    expiresAtSeconds: certificate.notAfterSeconds,
    ...(upstream !== undefined && { upstream }),
  }
}

function chainOf(path: readonly [Certificate, ...Certificate[]]): UpstreamChain {
  const [root = path[0]] = path.slice(-1)
  return { intermediates: path.slice(0, -1).map(({ raw }) => raw), root: root.raw }
}

const parameterSets = new WeakMap<Uint8Array, { readonly set: MlDsaParameterSet | undefined }>()

/** Of the post-quantum key in an authority's certificate. Asked in every round. */
function parameterSetOf(der: Uint8Array): MlDsaParameterSet | undefined {
  const known = parameterSets.get(der)
  if (known !== undefined) return known.set
  const set = altPublicKey(parseCertificate(der))?.parameterSet
  parameterSets.set(der, { set })
  return set
}

/** Without the post-quantum key that the certificate promises, nothing it signs would hold. */
function hasAlternativeOf(certificate: Certificate, key: SigningKey): boolean {
  const told = alternativeKeyInfo(certificate)
  return told === undefined || isForAlternative(told, key)
}

const isForAlternative = (publicKey: Uint8Array, { alternative }: SigningKey): boolean =>
  alternative !== undefined && equalBytes(publicKey, alternative.publicKey)

const described = new WeakMap<Uint8Array, Omit<PublishedAuthority, 'tainted'>>()

/** Bundles are looked at far more often than they change. */
function describe(der: Uint8Array): Omit<PublishedAuthority, 'tainted'> {
  const known = described.get(der)
  if (known !== undefined) return known
  const certificate = parseCertificate(der)
  const description = {
    // As agents name an authority that does not name itself.
    authorityId: (certificate.subjectKeyId ?? subjectKeyId(certificate.publicKey)).toHex(),
    expiresAtSeconds: certificate.notAfterSeconds,
  }
  described.set(der, description)
  return description
}

const published = ({ certificate, tainted }: X509Authority): PublishedAuthority => ({
  ...describe(certificate),
  tainted,
})
