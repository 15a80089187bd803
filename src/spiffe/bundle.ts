import { parseCertificate } from '#pki/certificate.ts'
import { encodePem, parsePem } from '#pki/pem.ts'
import type { TrustDomain } from './trust-domain.ts'

/** A certificate that X.509-SVIDs of a trust domain chain to. */
export interface X509Authority {
  /** DER. */
  readonly certificate: Uint8Array
  /** Still trusted, but everything that chains to it is to be replaced. */
  readonly tainted: boolean
  /** The certificate of its ML-DSA key, DER, of the post-quantum bundle alone: see `pqBundle()`. */
  readonly pq?: Uint8Array
}

/** A public key that JWT-SVIDs of a trust domain are verified with. */
export interface JwtAuthority {
  /** The `kid`, unique in the bundle. */
  readonly keyId: string
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** Unix time. Zero: not stated. */
  readonly expiresAtSeconds: number
  readonly tainted: boolean
  /** The ML-DSA key beside it, of the post-quantum bundle alone. */
  readonly pq?: PqJwtKey
}

/** An ML-DSA key that JWT-SVIDs are verified with. */
export interface PqJwtKey {
  /** The `kid`. */
  readonly keyId: string
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
}

/** What verifiers of a trust domain need to know (SPIFFE Trust Domain and Bundle §4). */
export interface Bundle {
  readonly trustDomain: TrustDomain
  readonly x509Authorities: readonly X509Authority[]
  readonly jwtAuthorities: readonly JwtAuthority[]
  /** Zero: not stated. */
  readonly refreshHintSeconds: number
  /** Grows with every change of content. 64 bits: never a number. */
  readonly sequenceNumber: bigint
}

/**
 * A bundle of X.509 authorities alone, from the CERTIFICATE blocks of `pem`; a certificate that stands there
 * twice is taken once.
 *
 * @throws SyntaxError when there is none or one is not well-formed.
 */
export function bundleFromPem(trustDomain: TrustDomain, pem: string): Bundle {
  const certificates = new Map<string, Uint8Array>()
  for (const [index, certificate] of parsePem(pem, 'CERTIFICATE').entries()) {
    try {
      parseCertificate(certificate)
    } catch (cause) {
      throw new SyntaxError(`invalid trust bundle: certificate ${index + 1} is not well-formed`, {
        cause,
      })
    }
    certificates.set(certificate.toHex(), certificate)
  }
  if (certificates.size === 0) {
    throw new SyntaxError('invalid trust bundle: it holds no CERTIFICATE block')
  }
  return {
    trustDomain,
    x509Authorities: [...certificates.values()].map((certificate) => ({
      certificate,
      tainted: false,
    })),
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 0n,
  }
}

/** The X.509 authorities of a bundle as CERTIFICATE blocks; empty when it has none. */
export function bundleToPem(bundle: Bundle): string {
  return bundle.x509Authorities
    .map((authority) => encodePem('CERTIFICATE', authority.certificate))
    .join('')
}
