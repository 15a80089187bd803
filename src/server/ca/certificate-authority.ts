import type { SpiffeId } from '#spiffe/spiffe-id.ts'

/** An X.509-SVID as handed out. */
export interface IssuedX509Svid {
  readonly spiffeId: SpiffeId
  /** DER, leaf first; the root is never among them. */
  readonly certificates: readonly Uint8Array[]
  /** Of the leaf, decimal. */
  readonly serialNumber: string
  readonly expiresAtSeconds: number
  /** Of the authority in the bundle that it chains to: its subject key identifier, lower-case hex. */
  readonly authorityId: string
}

/** A JWT-SVID as handed out. */
export interface IssuedJwtSvid {
  readonly spiffeId: SpiffeId
  /** JWS compact serialization. */
  readonly token: string
  readonly issuedAtSeconds: number
  readonly expiresAtSeconds: number
}

export interface X509SvidRequest {
  readonly spiffeId: SpiffeId
  /** SubjectPublicKeyInfo, DER; the caller has checked that the requester holds the private key. */
  readonly publicKey: Uint8Array
  readonly dnsNames?: readonly string[]
  /** Zero: the default. Never past the issuing authority's end. */
  readonly ttlSeconds: number
}

export interface JwtSvidRequest {
  readonly spiffeId: SpiffeId
  /** At least one. */
  readonly audience: readonly string[]
  /** Zero: the default. Never past the signing key's end. */
  readonly ttlSeconds: number
  readonly includeJti: boolean
}

/** A CA for a server of the same trust domain below this one. */
export interface DownstreamCaRequest {
  /** SubjectPublicKeyInfo, DER; the caller has checked that the requester holds the private key. */
  readonly publicKey: Uint8Array
  /** Zero: the default, `ca_ttl`. Never past the issuing authority's end. */
  readonly ttlSeconds: number
}

/** A CA below the active authority, as handed out. */
export interface IssuedDownstreamCa {
  /** DER, the new CA first; the root is never among them. */
  readonly certificates: readonly Uint8Array[]
  /** Of the new CA, decimal. */
  readonly serialNumber: string
  readonly expiresAtSeconds: number
  /** As {@link IssuedX509Svid} has it. */
  readonly authorityId: string
}

/**
 * Issues with whatever authority is active now. It decides nothing about who may have what: callers do.
 * Both calls throw AssayError `unavailable` within 50 ms when no key can sign, and `invalid-argument` for a
 * request that no SVID may be made of.
 */
export interface CertificateAuthority {
  issueX509Svid(request: X509SvidRequest): Promise<IssuedX509Svid>
  issueJwtSvid(request: JwtSvidRequest): Promise<IssuedJwtSvid>
  /**
   * A CA with the trust domain's own ID, which can sign any SVID of it. Throws `failed-precondition`, reason
   * `no-room-below`, when something above leaves no room for it.
   */
  issueDownstreamCa(request: DownstreamCaRequest): Promise<IssuedDownstreamCa>
  /**
   * An X.509-SVID of a workload for an ML-DSA key, signed by ML-DSA alone; its `authorityId` is that of the classical
   * authority beside. Throws `failed-precondition`, reason `no-pq-authority`, when there is no post-quantum authority.
   */
  issuePqX509Svid(request: X509SvidRequest): Promise<IssuedX509Svid>
  /** A JWT-SVID that is signed by ML-DSA. Throws as {@link issuePqX509Svid}. */
  issuePqJwtSvid(request: JwtSvidRequest): Promise<IssuedJwtSvid>
}
