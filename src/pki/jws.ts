import { constants, type KeyObject, verify } from 'node:crypto'
import { base64Url, parseBase64Url, utf8Bytes, utf8Text } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import { type Json, type JsonObject, jsonObject, parseJson, stringifyJson } from './json.ts'
import { type CurveName, curves, publicKeyObject } from './public-key.ts'
import type { HashName } from './signature-algorithm.ts'

/** Longest token that is read, in characters. */
export const maxTokenCharacters = 16 * 1024

/** Signature algorithms of JWT-SVIDs (JWT-SVID §2.1; RFC 7518 §3.1) and what each needs. */
export const jwsAlgorithms = {
  RS256: { type: 'rsa', hash: 'sha256' },
  RS384: { type: 'rsa', hash: 'sha384' },
  RS512: { type: 'rsa', hash: 'sha512' },
  PS256: { type: 'rsa-pss', hash: 'sha256', saltBytes: 32 },
  PS384: { type: 'rsa-pss', hash: 'sha384', saltBytes: 48 },
  PS512: { type: 'rsa-pss', hash: 'sha512', saltBytes: 64 },
  ES256: { type: 'ec', hash: 'sha256', curve: 'P-256' },
  ES384: { type: 'ec', hash: 'sha384', curve: 'P-384' },
  ES512: { type: 'ec', hash: 'sha512', curve: 'P-521' },
} as const satisfies Record<
  string,
  | { type: 'rsa'; hash: HashName }
  | { type: 'rsa-pss'; hash: HashName; saltBytes: number }
  | { type: 'ec'; hash: HashName; curve: CurveName }
>

export type JwsAlgorithm = keyof typeof jwsAlgorithms

export const isJwsAlgorithm = (name: unknown): name is JwsAlgorithm =>
  typeof name === 'string' && Object.hasOwn(jwsAlgorithms, name)

/** A JSON Web Signature in compact form (RFC 7515 §7.1), taken apart and not yet verified. */
export interface CompactJws {
  readonly header: JsonObject
  readonly claims: JsonObject
  /** What is signed, ASCII. */
  readonly signingInput: Uint8Array
  readonly signature: Uint8Array
}

/** What a compact JWS signs: header and claims, each in base64url, with a dot between. */
export function signingInput(header: JsonObject, claims: JsonObject): string {
  return `${encodePart(header)}.${encodePart(claims)}`
}

/** The token of a {@link signingInput} and its signature; ECDSA as r ‖ s (RFC 7518 §3.4). */
export function compactJws(input: string, signature: Uint8Array): string {
  return `${input}.${base64Url(signature)}`
}

/**
 * Takes a token apart. Header and payload must be JSON objects without repeated members.
 *
 * @throws SyntaxError when it is not well-formed or longer than {@link maxTokenCharacters}.
 */
export function parseCompactJws(token: string): CompactJws {
  if (token.length > maxTokenCharacters) {
    throw new SyntaxError(`invalid JWS: longer than ${maxTokenCharacters} characters`)
  }
  const parts = token.split('.')
  const [header, payload, signature] = parts
  if (parts.length !== 3 || header === undefined || payload === undefined || !signature) {
    throw new SyntaxError(`invalid JWS: it has ${parts.length} parts, not three that are not empty`)
  }
  return {
    header: decodePart(header, 'header'),
    claims: decodePart(payload, 'payload'),
    signingInput: utf8Bytes(`${header}.${payload}`),
    signature: decodeBase64(signature, 'signature'),
  }
}

/**
 * Checks the signature of `jws` with a SubjectPublicKeyInfo or KeyObject. `algorithm` is what the caller has
 * chosen from the header and judged; the key must be of its type and, for ECDSA, on its curve.
 *
 * @throws AssayError `unauthenticated`, reason `token-key-mismatch` or `token-signature-invalid`.
 */
export function verifyJws(
  jws: CompactJws,
  publicKey: Uint8Array | KeyObject,
  algorithm: JwsAlgorithm,
): void {
  const key = publicKey instanceof Uint8Array ? publicKeyObject(publicKey) : publicKey
  const wanted = jwsAlgorithms[algorithm]
  if (!fits(key, algorithm)) {
    throw new AssayError(
      'unauthenticated',
      `cannot verify a token of algorithm ${algorithm} with a key of type ${key.asymmetricKeyType}`,
      { reason: 'token-key-mismatch' },
    )
  }
  const { signingInput: message, signature } = jws
  let valid: boolean
  switch (wanted.type) {
    case 'rsa':
      valid = verify(wanted.hash, message, key, signature)
      break
    case 'rsa-pss':
      valid = verify(
        wanted.hash,
        message,
        { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: wanted.saltBytes },
        signature,
      )
      break
    case 'ec':
      valid =
        signature.length === 2 * curves[wanted.curve].fieldBytes &&
        verify(wanted.hash, message, { key, dsaEncoding: 'ieee-p1363' }, signature)
      break
  }
  if (!valid) {
    throw new AssayError('unauthenticated', 'cannot accept the token: its signature is not valid', {
      reason: 'token-signature-invalid',
    })
  }
}

const opensslCurves = { 'P-256': 'prime256v1', 'P-384': 'secp384r1', 'P-521': 'secp521r1' } as const

function fits(key: KeyObject, algorithm: JwsAlgorithm): boolean {
  const wanted = jwsAlgorithms[algorithm]
  const details = key.asymmetricKeyDetails
  if (wanted.type === 'ec') {
    return key.asymmetricKeyType === 'ec' && details?.namedCurve === opensslCurves[wanted.curve]
  }
  return key.asymmetricKeyType === 'rsa' && (details?.modulusLength ?? 0) >= 2048
}

const encodePart = (value: JsonObject): string => base64Url(utf8Bytes(stringifyJson(value)))

function decodePart(part: string, what: string): JsonObject {
  const bytes = decodeBase64(part, what)
  let value: Json
  try {
    value = parseJson(utf8Text(bytes), { maxCharacters: maxTokenCharacters })
  } catch (cause) {
    throw new SyntaxError(`invalid JWS: its ${what} is not JSON in UTF-8, or repeats a member`, {
      cause,
    })
  }
  return jsonObject(value, `invalid JWS: its ${what}`)
}

function decodeBase64(part: string, what: string): Uint8Array {
  try {
    return parseBase64Url(part)
  } catch (cause) {
    throw new SyntaxError(`invalid JWS: its ${what} is not base64url`, { cause })
  }
}
