import { equalBytes } from '#base/bytes.ts'
import type { Random } from '#base/random.ts'
import { newSerialNumbers } from '#issuance/serial-numbers.ts'
import { parseCertificate } from '#pki/certificate.ts'
import type { NameAttribute } from '#pki/name.ts'
import type { X509Authority } from '#spiffe/bundle.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { issueRootCertificate } from '../ca/authority-certificate.ts'
import type { KeyType } from '../plugin/key-manager/key-manager.ts'
import type { AuthorityKind, PublishedAuthority } from './authority-kind.ts'
import { publicKeyInfo } from './public-key-info.ts'

/** X.509 authorities: a self-signed certificate each, named by its subject key identifier. */
export function newX509Kind(options: {
  readonly trustDomain: TrustDomain
  readonly keyType: KeyType
  readonly ttlSeconds: number
  readonly subject: readonly NameAttribute[]
  readonly random: Random
}): AuthorityKind {
  const { trustDomain, keyType, ttlSeconds, subject } = options
  const newSerialNumber = newSerialNumbers(options.random)
  return {
    name: 'x509',
    title: 'X.509 authority',
    keyPrefix: 'x509-ca',
    keyType,
    async issue(key, nowSeconds) {
      const certificate = await issueRootCertificate(key, {
        trustDomain,
        subject,
        serialNumber: newSerialNumber(),
        nowSeconds,
        ttlSeconds,
      })
      return {
        authorityId: describe(certificate.raw).authorityId,
        content: certificate.raw,
        issuedAtSeconds: nowSeconds,
        expiresAtSeconds: certificate.notAfterSeconds,
      }
    },
    fits(issued, key) {
      const certificate = parseCertificate(issued.content)
      return (
        certificate.uris[0] === spiffeId(trustDomain, '') &&
        equalBytes(certificate.publicKey, publicKeyInfo(key))
      )
    },
    published: (bundle) => bundle.x509Authorities.map(published),
    withAuthority(bundle, issued) {
      const isThere = bundle.x509Authorities.some(({ certificate }) =>
        equalBytes(certificate, issued.content),
      )
      if (isThere) return bundle
      const authority = { certificate: issued.content, tainted: false }
      return { ...bundle, x509Authorities: [...bundle.x509Authorities, authority] }
    },
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

const described = new WeakMap<Uint8Array, Omit<PublishedAuthority, 'tainted'>>()

/** Bundles are looked at far more often than they change. */
function describe(der: Uint8Array): Omit<PublishedAuthority, 'tainted'> {
  const known = described.get(der)
  if (known !== undefined) return known
  const certificate = parseCertificate(der)
  const description = {
    authorityId: certificate.subjectKeyId?.toHex() ?? '',
    expiresAtSeconds: certificate.notAfterSeconds,
  }
  described.set(der, description)
  return description
}

const published = ({ certificate, tainted }: X509Authority): PublishedAuthority => ({
  ...describe(certificate),
  tainted,
})
