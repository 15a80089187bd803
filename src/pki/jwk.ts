import { base64Url, concatBytes, parseBase64Url } from '#base/bytes.ts'
import { type JsonObject, stringMember } from './json.ts'
import {
  type CurveName,
  checkKeyStrength,
  curves,
  describePublicKey,
  ecPublicKeyInfo,
  newPublicKeyObject,
  rsaPublicKeyInfo,
} from './public-key.ts'

/** The members of a JSON Web Key that hold a public key (RFC 7518 §6, RFC 8037 §2), all base64url. */
export type PublicJwk =
  | { readonly kty: 'EC'; readonly crv: CurveName; readonly x: string; readonly y: string }
  | { readonly kty: 'RSA'; readonly n: string; readonly e: string }
  | { readonly kty: 'OKP'; readonly crv: 'Ed25519'; readonly x: string }

/** @throws RangeError when the SubjectPublicKeyInfo holds none of EC P-256, P-384, P-521, RSA and Ed25519. */
export function publicKeyToJwk(spki: Uint8Array): PublicJwk {
  const key = describePublicKey(spki)
  switch (key.type) {
    case 'ec': {
      const { fieldBytes } = curves[key.curve]
      const x = base64Url(key.point.subarray(1, 1 + fieldBytes))
      const y = base64Url(key.point.subarray(1 + fieldBytes))
      return { kty: 'EC', crv: key.curve, x, y }
    }
    case 'rsa':
      return { kty: 'RSA', n: base64Url(key.modulus), e: base64Url(key.exponent) }
    case 'ed25519':
      return { kty: 'OKP', crv: 'Ed25519', x: base64Url(key.point) }
    case 'other':
      throw new RangeError(`cannot write key type ${key.algorithm} as a JWK`)
  }
}

/**
 * The SubjectPublicKeyInfo of a JWK of type EC or RSA, the types JWT-SVIDs are signed with; members that do not hold the key are passed over.
 *
 * @throws SyntaxError when a member is missing or wrong, RangeError when the key's type or strength is not allowed.
 */
export function jwkToPublicKey(jwk: JsonObject): Uint8Array {
  const spki = readKey(jwk)
  checkKeyStrength(describePublicKey(spki))
  // OpenSSL checks here that the point lies on its curve.
  newPublicKeyObject(spki)
  return spki
}

function readKey(jwk: JsonObject): Uint8Array {
  const type = required(jwk, 'kty')
  if (type === 'RSA') return rsaPublicKeyInfo(decode(jwk, 'n'), decode(jwk, 'e'))
  if (type !== 'EC') throw new RangeError(`cannot read a JWK of type ${JSON.stringify(type)}`)
  const name = required(jwk, 'crv')
  if (!Object.hasOwn(curves, name))
    throw new RangeError(`cannot read a JWK on curve ${JSON.stringify(name)}`)
  const curve = name as CurveName
  const x = decode(jwk, 'x')
  const y = decode(jwk, 'y')
  const { fieldBytes } = curves[curve]
  if (x.length !== fieldBytes || y.length !== fieldBytes) {
    throw new SyntaxError(`invalid JWK: a coordinate on ${curve} is not ${fieldBytes} bytes`)
  }
  return ecPublicKeyInfo(curve, concatBytes(Uint8Array.of(4), x, y))
}

function required(jwk: JsonObject, name: string): string {
  const value = stringMember(jwk, name)
  if (value === undefined) throw new SyntaxError(`invalid JWK: no member ${JSON.stringify(name)}`)
  return value
}

function decode(jwk: JsonObject, name: string): Uint8Array {
  const bytes = parseBase64Url(required(jwk, name))
  if (bytes.length === 0 || bytes.length > 1024) {
    throw new SyntaxError(`invalid JWK: ${JSON.stringify(name)} has ${bytes.length} bytes`)
  }
  return bytes
}
