import type { TrustDomain } from './trust-domain.ts'

/** A certificate that X.509-SVIDs of a trust domain chain to. */
export interface X509Authority {
  /** DER. */
  readonly certificate: Uint8Array
  /** Still trusted, but everything that chains to it is to be replaced. */
  readonly tainted: boolean
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
