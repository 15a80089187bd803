import { createPublicKey } from 'node:crypto'
import { base64Url } from '#base/bytes.ts'
import type { HsmKeyType } from '../key-type.ts'
import { type Cryptoki, ck, type Handle } from './cryptoki.ts'
import { curveOf, rsaTypeOf } from './key-template.ts'

/** A public key read from a token. */
export interface TokenPublicKey {
  readonly type: HsmKeyType
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array
}

/** @throws RangeError when the object is no public key of a type we use. */
export function readPublicKey(cryptoki: Cryptoki, session: Handle, object: Handle): TokenPublicKey {
  const [keyType = new Uint8Array()] = cryptoki.attributes(session, object, [ck.CKA_KEY_TYPE])
  switch (littleEndian(keyType)) {
    case ck.CKK_EC:
      return readEcKey(cryptoki, session, object)
    case ck.CKK_RSA:
      return readRsaKey(cryptoki, session, object)
    default:
      throw new RangeError(`key type 0x${littleEndian(keyType).toString(16)} is neither EC nor RSA`)
  }
}

function readEcKey(cryptoki: Cryptoki, session: Handle, object: Handle): TokenPublicKey {
  const types = [ck.CKA_EC_PARAMS, ck.CKA_EC_POINT]
  const [parameters = new Uint8Array(), encoded = new Uint8Array()] = cryptoki.attributes(
    session,
    object,
    types,
  )
  const curve = curveOf(parameters)
  if (curve === undefined) throw new RangeError('curve is neither P-256 nor P-384')
  const fieldBytes = curve === 'P-256' ? 32 : 48
  const point = pointOf(encoded, 1 + 2 * fieldBytes)
  const spki = encodeSpki({
    kty: 'EC',
    crv: curve,
    x: base64Url(point.subarray(1, 1 + fieldBytes)),
    y: base64Url(point.subarray(1 + fieldBytes)),
  })
  return { type: curve === 'P-256' ? 'ec-p256' : 'ec-p384', spki }
}

/** PKCS#11 v2.40 §2.3.3 wraps the point in a DER OCTET STRING; older modules give it bare. */
function pointOf(encoded: Uint8Array, pointBytes: number): Uint8Array {
  const wrapped =
    encoded.length === pointBytes + 2 && encoded[0] === 0x04 && encoded[1] === pointBytes
  const point = wrapped ? encoded.subarray(2) : encoded
  if (point.length !== pointBytes || point[0] !== 0x04) {
    throw new RangeError('CKA_EC_POINT is not an uncompressed point of its curve')
  }
  return point
}

function readRsaKey(cryptoki: Cryptoki, session: Handle, object: Handle): TokenPublicKey {
  const types = [ck.CKA_MODULUS, ck.CKA_PUBLIC_EXPONENT]
  const [modulus = new Uint8Array(), exponent = new Uint8Array()] = cryptoki.attributes(
    session,
    object,
    types,
  )
  const n = withoutLeadingZeros(modulus)
  const type = rsaTypeOf(n.length * 8)
  if (type === undefined) {
    throw new RangeError(`rsa modulus of ${n.length * 8} bits is none of 2048, 3072, 4096`)
  }
  const spki = encodeSpki({
    kty: 'RSA',
    n: base64Url(n),
    e: base64Url(withoutLeadingZeros(exponent)),
  })
  return { type, spki }
}

function encodeSpki(key: Readonly<Record<string, string>>): Uint8Array {
  return new Uint8Array(
    createPublicKey({ key, format: 'jwk' }).export({ type: 'spki', format: 'der' }),
  )
}

function withoutLeadingZeros(bytes: Uint8Array): Uint8Array {
  let start = 0
  while (start < bytes.length - 1 && bytes[start] === 0) start++
  return bytes.subarray(start)
}

/** CK_ULONG in memory order: every platform Node runs on here is little-endian. */
function littleEndian(bytes: Uint8Array): number {
  let value = 0
  for (let i = bytes.length - 1; i >= 0; i--) value = value * 256 + (bytes[i] ?? 0)
  return value
}
