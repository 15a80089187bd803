import type { KeyObject } from 'node:crypto'
import { concatBytes } from '#base/bytes.ts'
import { ecPublicKeyInfo, newPublicKeyObject, rsaPublicKeyInfo } from '#pki/public-key.ts'
import { curves } from './algorithms.ts'
import type { EccPublicArea, PublicArea } from './public-area.ts'

const publicExponent = Uint8Array.of(1, 0, 1)
const uncompressed = Uint8Array.of(4)

/**
 * SubjectPublicKeyInfo, DER, of a TPM key: the one encoding that is hashed into node identities. ECC points are
 * uncompressed and padded to the field; RSA has the plain rsaEncryption identifier.
 */
export function subjectPublicKeyInfo(area: PublicArea): Uint8Array {
  return area.type === 'rsa'
    ? rsaPublicKeyInfo(area.modulus, publicExponent)
    : ecPublicKeyInfo(area.curve, uncompressedPoint(area))
}

/** `04 ‖ x ‖ y`, each coordinate padded to the field (SEC 1 §2.3.3). */
export function uncompressedPoint(area: EccPublicArea): Uint8Array {
  const { fieldBytes } = curves[area.curve]
  return concatBytes(uncompressed, padLeft(area.x, fieldBytes), padLeft(area.y, fieldBytes))
}

/**
 * The key as `node:crypto` takes it.
 *
 * @throws SyntaxError when it is not a key, such as a point that is not on its curve.
 */
export function publicKeyOf(area: PublicArea): KeyObject {
  return newPublicKeyObject(subjectPublicKeyInfo(area))
}

/** `bytes` with zeros before them: TPMs may leave out a number's leading zeros. @throws RangeError when longer. */
export function padLeft(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length > length)
    throw new RangeError(`a number has ${bytes.length} bytes where ${length} are the limit`)
  return concatBytes(new Uint8Array(length - bytes.length), bytes)
}

/** `bytes` with zeros after them, as nonces stand in templates. @throws RangeError when longer. */
export function padRight(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length > length)
    throw new RangeError(`a nonce has ${bytes.length} bytes where ${length} are the limit`)
  return concatBytes(bytes, new Uint8Array(length - bytes.length))
}
