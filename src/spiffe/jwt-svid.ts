import { AssayError } from '#base/errors.ts'
import { type Json, type JsonObject, jsonMember } from '#pki/json.ts'
import {
  type CompactJws,
  isJwsAlgorithm,
  type JwsAlgorithm,
  jwsAlgorithms,
  parseCompactJws,
  signingInput,
  verifyJws,
} from '#pki/jws.ts'
import type { MlDsaJwsAlgorithm } from '#pq-crypto/ml-dsa-jose.ts'
import type { Bundle, JwtAuthority } from './bundle.ts'
import { parseSpiffeId, type SpiffeId, trustDomainOf } from './spiffe-id.ts'
import type { TrustDomain } from './trust-domain.ts'

/** What a JWT-SVID says, to be signed. */
export interface JwtSvidContent {
  /** The `kid` of the signing key in the bundle. */
  readonly keyId: string
  readonly alg: JwsAlgorithm | MlDsaJwsAlgorithm
  readonly subject: SpiffeId
  /** At least one, none of them empty. */
  readonly audience: readonly string[]
  /** Unix time. */
  readonly issuedAtSeconds: number
  /** Unix time, after the issue. */
  readonly expiresAtSeconds: number
  /** `iss`, for OIDC. */
  readonly issuer?: string
  /** Unique to the token; validators need not look at it. */
  readonly jti?: string
}

/**
 * The signing input of a JWT-SVID (JWT-SVID §2, §3): sign its ASCII bytes and hand both to `compactJws()`.
 * `aud` is always an array.
 *
 * @throws RangeError when there is no audience, one is empty, or the token ends before it begins.
 */
export function encodeJwtSvid(content: JwtSvidContent): string {
  const { keyId, alg, subject, audience, issuedAtSeconds, expiresAtSeconds, issuer, jti } = content
  if (audience.length === 0 || audience.includes('')) {
    throw new RangeError('cannot make a JWT-SVID: it needs an audience, and none may be empty')
  }
  if (expiresAtSeconds <= issuedAtSeconds) {
    throw new RangeError(
      `cannot make a JWT-SVID: it would end at ${expiresAtSeconds}, not after ${issuedAtSeconds}`,
    )
  }
  return signingInput(
    { alg, kid: keyId, typ: 'JWT' },
    {
      sub: subject,
      aud: audience,
      exp: expiresAtSeconds,
      iat: issuedAtSeconds,
      ...(issuer === undefined ? {} : { iss: issuer }),
      ...(jti === undefined ? {} : { jti }),
    },
  )
}

/** Whom a validator is and whom it trusts. */
export interface JwtSvidExpectation {
  /** What the validator calls itself; it must be among the token's audiences. */
  readonly audience: string
  /** The bundle of a trust domain; undefined when it is not trusted. */
  readonly bundles: (trustDomain: TrustDomain) => Bundle | undefined
  /** Unix time. */
  readonly nowSeconds: number
  /** How far clocks may differ. Default: 60. */
  readonly leewaySeconds?: number
}

export interface ValidatedJwtSvid {
  readonly spiffeId: SpiffeId
  /** All of the token's audiences. */
  readonly audience: readonly string[]
  /** Unix time; the token may state a fraction. */
  readonly expiresAtSeconds: number
  readonly claims: JsonObject
}

/** Most keys that are tried for a token that names none. */
const maxTriedKeys = 8

/**
 * Validates a JWT-SVID (JWT-SVID §4). It checks, in this order, that
 * the token is a compact JWS whose `alg` is allowed, whose `typ`, if any, is `JWT` or `JOSE`, and which has no `crit`;
 * `sub` is a SPIFFE ID, `aud` names the validator, `exp` is there;
 * a JWT authority of the trust domain of `sub` made the signature, with a key of the type that `alg` needs;
 * the token is neither expired, nor not yet valid, nor issued in the future.
 * A token without `kid` is tried with the keys that fit, since the header is optional.
 *
 * @throws AssayError `unauthenticated`; its reason begins with `token-` or `trust-domain-`.
 */
export function validateJwtSvid(token: string, expectation: JwtSvidExpectation): ValidatedJwtSvid {
  return validate(token, expectation, classicalScheme)
}

/** Which algorithms a validator takes, and how it verifies them. */
export interface JwtSvidScheme<Algorithm extends string> {
  readonly algorithms: readonly Algorithm[]
  /** @throws AssayError `unauthenticated` unless the key (SubjectPublicKeyInfo, DER) is for `algorithm` and has signed. */
  verify(jws: CompactJws, publicKey: Uint8Array, algorithm: Algorithm): void
}

const classicalScheme: JwtSvidScheme<JwsAlgorithm> = {
  algorithms: Object.keys(jwsAlgorithms).filter(isJwsAlgorithm),
  verify: verifyJws,
}

/** {@link validateJwtSvid} by another scheme. */
export function validate<Algorithm extends string>(
  token: string,
  expectation: JwtSvidExpectation,
  scheme: JwtSvidScheme<Algorithm>,
): ValidatedJwtSvid {
  const jws = parseToken(token)
  const algorithm = judgeHeader(jws.header, scheme.algorithms)
  const spiffeId = readSubject(jws.claims)
  const audience = readAudience(jws.claims)
  if (!audience.includes(expectation.audience)) {
    throw refuse(
      'token-audience-mismatch',
      `it is for ${JSON.stringify(audience.slice(0, 8)).slice(0, 256)}, not for ${JSON.stringify(expectation.audience)}`,
    )
  }
  const expiresAtSeconds = readTime(jws.claims, 'exp')
  if (expiresAtSeconds === undefined) throw refuse('token-without-expiry', 'it has no "exp"')
  const authorities = trustedKeys(spiffeId, expectation.bundles)
  verifySignature(jws, authorities, (key) => scheme.verify(jws, key, algorithm))
  checkTimes(jws.claims, expiresAtSeconds, expectation)
  return { spiffeId, audience, expiresAtSeconds, claims: jws.claims }
}

function parseToken(token: string): CompactJws {
  try {
    return parseCompactJws(token)
  } catch (cause) {
    throw refuse('token-malformed', 'it is not a compact JWS', cause)
  }
}

function judgeHeader<Algorithm extends string>(
  header: JsonObject,
  allowed: readonly Algorithm[],
): Algorithm {
  const named = jsonMember(header, 'alg')
  const algorithm = allowed.find((one) => one === named)
  if (algorithm === undefined) {
    throw refuse(
      'token-algorithm-not-allowed',
      `its algorithm ${text(named)} is not one of ${allowed.join(', ')}`,
    )
  }
  const type = jsonMember(header, 'typ')
  if (type !== undefined && type !== 'JWT' && type !== 'JOSE') {
    throw refuse('token-type-not-allowed', `its type ${text(type)} is neither JWT nor JOSE`)
  }
  // No extension of RFC 7515 §4.1.11 is understood here, so none may be critical.
  if (jsonMember(header, 'crit') !== undefined) {
    throw refuse('token-header-not-understood', 'it has a "crit" header')
  }
  return algorithm
}

function readSubject(claims: JsonObject): SpiffeId {
  const subject = jsonMember(claims, 'sub')
  if (typeof subject !== 'string') throw refuse('token-subject-invalid', 'it has no "sub"')
  try {
    return parseSpiffeId(subject)
  } catch (cause) {
    throw refuse('token-subject-invalid', `its subject ${text(subject)} is no SPIFFE ID`, cause)
  }
}

function readAudience(claims: JsonObject): readonly string[] {
  const claim = jsonMember(claims, 'aud')
  const audience: readonly Json[] =
    typeof claim === 'string' ? [claim] : Array.isArray(claim) ? claim : []
  if (audience.length === 0 || !audience.every((value) => typeof value === 'string')) {
    throw refuse('token-audience-missing', 'its "aud" is neither a string nor an array of some')
  }
  return audience as readonly string[]
}

/** A NumericDate (RFC 7519 §2), or undefined when the claim is absent. */
function readTime(claims: JsonObject, name: string): number | undefined {
  const value = jsonMember(claims, name)
  if (value !== undefined && typeof value !== 'number') {
    throw refuse('token-malformed', `its ${JSON.stringify(name)} is not a time`)
  }
  return value
}

function trustedKeys(
  spiffeId: SpiffeId,
  bundles: JwtSvidExpectation['bundles'],
): readonly JwtAuthority[] {
  const trustDomain = trustDomainOf(spiffeId)
  const bundle = bundles(trustDomain)
  if (bundle === undefined || bundle.trustDomain !== trustDomain) {
    throw refuse(
      'trust-domain-unknown',
      `there is no bundle of trust domain ${trustDomain}; federate with it first`,
    )
  }
  if (bundle.jwtAuthorities.length === 0) {
    throw refuse(
      'trust-domain-without-jwt',
      `the bundle of trust domain ${trustDomain} has no JWT authority`,
    )
  }
  return bundle.jwtAuthorities
}

function verifySignature(
  jws: CompactJws,
  authorities: readonly JwtAuthority[],
  verify: (publicKey: Uint8Array) => void,
): void {
  const keyId = jsonMember(jws.header, 'kid')
  const candidates =
    keyId === undefined
      ? authorities.slice(-maxTriedKeys)
      : authorities.filter((authority) => authority.keyId === keyId)
  let refusal = refuse('token-key-unknown', `its key ${text(keyId)} is not in the bundle`)
  for (const { publicKey } of candidates) {
    try {
      verify(publicKey)
      return
    } catch (error) {
      refusal =
        error instanceof AssayError
          ? error
          : refuse('token-key-mismatch', 'its key in the bundle cannot be used', error)
    }
  }
  throw refusal
}

function checkTimes(
  claims: JsonObject,
  expiresAtSeconds: number,
  expectation: JwtSvidExpectation,
): void {
  const { nowSeconds, leewaySeconds = 60 } = expectation
  // "on or after" the time it no longer counts (RFC 7519 §4.1.4).
  if (nowSeconds >= expiresAtSeconds + leewaySeconds) {
    throw refuse('token-expired', `it ended at ${expiresAtSeconds} and it is ${nowSeconds}`)
  }
  const notBeforeSeconds = readTime(claims, 'nbf')
  if (notBeforeSeconds !== undefined && nowSeconds + leewaySeconds < notBeforeSeconds) {
    throw refuse(
      'token-not-yet-valid',
      `it begins at ${notBeforeSeconds} and it is ${nowSeconds}; compare the clocks`,
    )
  }
  const issuedAtSeconds = readTime(claims, 'iat')
  if (issuedAtSeconds !== undefined && nowSeconds + leewaySeconds < issuedAtSeconds) {
    throw refuse(
      'token-issued-in-future',
      `it was issued at ${issuedAtSeconds} and it is ${nowSeconds}; compare the clocks`,
    )
  }
}

const text = (value: Json | undefined): string =>
  typeof value === 'string' ? JSON.stringify(value.slice(0, 256)) : `of type ${typeof value}`

function refuse(reason: string, why: string, cause?: unknown): AssayError {
  return new AssayError('unauthenticated', `cannot accept the JWT-SVID: ${why}`, {
    reason,
    cause,
  })
}
