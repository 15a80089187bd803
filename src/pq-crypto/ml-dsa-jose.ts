import { base64Url, parseBase64Url } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import { bitString, sequence } from '#pki/der.ts'
import { type JsonObject, stringMember } from '#pki/json.ts'
import type { CompactJws } from '#pki/jws.ts'
import { publicKeyBits } from '#pki/public-key.ts'
import {
  isMlDsaSignedBy,
  type MlDsaParameterSet,
  type MlDsaPublicKey,
  mlDsaAlgorithm,
  mlDsaParameterSets,
  parseMlDsaPublicKey,
} from './ml-dsa.ts'

/** `alg` of JWS and JWK by parameter set (RFC 9964 §4). */
export const mlDsaJwsAlgorithm = {
  'ml-dsa-44': 'ML-DSA-44',
  'ml-dsa-65': 'ML-DSA-65',
  'ml-dsa-87': 'ML-DSA-87',
} as const satisfies Readonly<Record<MlDsaParameterSet, string>>

export type MlDsaJwsAlgorithm = (typeof mlDsaJwsAlgorithm)[MlDsaParameterSet]

/** The parameter set of a JWS `alg`; undefined: it is not ML-DSA. */
const parameterSetOfAlgorithm = (alg: unknown): MlDsaParameterSet | undefined =>
  mlDsaParameterSets.find((set) => mlDsaJwsAlgorithm[set] === alg)

/** An "Algorithm Key Pair" (RFC 9964 §3): `alg` is required, `pub` is base64url. */
export interface AkpJwk {
  readonly kty: 'AKP'
  readonly alg: string
  readonly pub: string
}

/** @throws SyntaxError or RangeError unless the SubjectPublicKeyInfo holds an ML-DSA key. */
export function akpJwk(spki: Uint8Array): AkpJwk {
  const { parameterSet } = parseMlDsaPublicKey(spki)
  return {
    kty: 'AKP',
    alg: mlDsaJwsAlgorithm[parameterSet],
    pub: base64Url(publicKeyBits(spki)),
  }
}

/**
 * The SubjectPublicKeyInfo of an AKP key.
 *
 * @throws RangeError when its type or algorithm is another; SyntaxError when a member is missing or of a wrong length.
 */
export function akpToPublicKey(jwk: JsonObject): Uint8Array {
  const type = stringMember(jwk, 'kty')
  if (type !== 'AKP') throw new RangeError(`its key type ${JSON.stringify(type)} is not AKP`)
  const alg = stringMember(jwk, 'alg')
  const parameterSet = parameterSetOfAlgorithm(alg)
  if (parameterSet === undefined)
    throw new RangeError(`its algorithm ${JSON.stringify(alg)} is not ML-DSA`)
  const pub = stringMember(jwk, 'pub')
  if (pub === undefined) throw new SyntaxError('invalid JWK: no member "pub"')
  const spki = sequence(mlDsaAlgorithm[parameterSet], bitString(parseBase64Url(pub)))
  parseMlDsaPublicKey(spki)
  return spki
}

/**
 * Checks the signature of `jws` with an ML-DSA key (SubjectPublicKeyInfo, DER), which signs with one algorithm alone
 * (RFC 9964 §4), over the signing input, with an empty context.
 *
 * @throws AssayError `unauthenticated`, reason `token-key-mismatch` or `token-signature-invalid`.
 */
export function verifyMlDsaJws(
  { signingInput: message, signature }: CompactJws,
  publicKey: Uint8Array,
  algorithm: MlDsaJwsAlgorithm,
): void {
  const refuse = (reason: string, why: string, cause?: unknown): AssayError =>
    new AssayError('unauthenticated', `cannot accept the token: ${why}`, { reason, cause })
  let key: MlDsaPublicKey
  try {
    key = parseMlDsaPublicKey(publicKey)
  } catch (cause) {
    throw refuse('token-key-mismatch', 'its key in the bundle is not ML-DSA', cause)
  }
  if (mlDsaJwsAlgorithm[key.parameterSet] !== algorithm) {
    throw refuse('token-key-mismatch', `its key in the bundle is for ${key.parameterSet}`)
  }
  if (!isMlDsaSignedBy(key, { message, signature })) {
    throw refuse('token-signature-invalid', 'its signature is not valid')
  }
}
