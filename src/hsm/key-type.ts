/** The kinds of key Assay keeps in an HSM. Each signs with one scheme only. */
export type HsmKeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048' | 'rsa-3072' | 'rsa-4096'

/** What both ends must agree on about a kind of key. */
export interface HsmKeyProfile {
  readonly family: 'ec' | 'rsa'
  /** Digest made in software; the HSM only signs it. */
  readonly hash: 'sha256' | 'sha384'
  readonly digestBytes: number
  /** ECDSA: `r ‖ s`, two field elements. RSA: the modulus length. */
  readonly signatureBytes: number
  /** As JWK (RFC 7518 §6.2.1.1) and `asymmetricKeyDetails` name it; undefined for RSA. */
  readonly jwkCurve: 'P-256' | 'P-384' | undefined
}

const profiles: Readonly<Record<HsmKeyType, HsmKeyProfile>> = {
  'ec-p256': {
    family: 'ec',
    hash: 'sha256',
    digestBytes: 32,
    signatureBytes: 64,
    jwkCurve: 'P-256',
  },
  'ec-p384': {
    family: 'ec',
    hash: 'sha384',
    digestBytes: 48,
    signatureBytes: 96,
    jwkCurve: 'P-384',
  },
  'rsa-2048': {
    family: 'rsa',
    hash: 'sha256',
    digestBytes: 32,
    signatureBytes: 256,
    jwkCurve: undefined,
  },
  'rsa-3072': {
    family: 'rsa',
    hash: 'sha256',
    digestBytes: 32,
    signatureBytes: 384,
    jwkCurve: undefined,
  },
  'rsa-4096': {
    family: 'rsa',
    hash: 'sha256',
    digestBytes: 32,
    signatureBytes: 512,
    jwkCurve: undefined,
  },
}

/** The facts of one kind of key. */
export function profileOf(type: HsmKeyType): HsmKeyProfile {
  return profiles[type]
}

/** Whether `value` names a kind of key, as it comes off the wire. */
export function isHsmKeyType(value: unknown): value is HsmKeyType {
  return typeof value === 'string' && Object.hasOwn(profiles, value)
}
