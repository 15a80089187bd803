import { createPublicKey, type KeyObject } from 'node:crypto'
import {
  bitString,
  derNull,
  derTag,
  integer,
  oid,
  readElement,
  readOctetAlignedBits,
  readOid,
  readUnsigned,
  sequence,
} from './der.ts'

/** Elliptic curves that keys may be on, by JOSE's names. */
export type CurveName = 'P-256' | 'P-384' | 'P-521'

/** What a SubjectPublicKeyInfo holds, for the key types Assay knows. */
export type PublicKeyDescription =
  | { readonly type: 'ec'; readonly curve: CurveName; readonly point: Uint8Array }
  | {
      readonly type: 'rsa'
      readonly modulusBits: number
      /** Big-endian, without leading zeros. */
      readonly modulus: Uint8Array
      readonly exponent: Uint8Array
    }
  | { readonly type: 'ed25519'; readonly point: Uint8Array }
  | { readonly type: 'other'; readonly algorithm: string }

/** Curves with their identifiers and the length of a coordinate in bytes. */
export const curves = {
  'P-256': { oid: '1.2.840.10045.3.1.7', fieldBytes: 32 },
  'P-384': { oid: '1.3.132.0.34', fieldBytes: 48 },
  'P-521': { oid: '1.3.132.0.35', fieldBytes: 66 },
} as const

const ecPublicKey = '1.2.840.10045.2.1'
const rsaEncryption = '1.2.840.113549.1.1.1'
const ed25519 = '1.3.101.112'
const maxSpkiBytes = 8192
const curveNames = Object.keys(curves) as CurveName[]

/** The bits of the key in a SubjectPublicKeyInfo, without the algorithm. */
export function publicKeyBits(spki: Uint8Array): Uint8Array {
  return splitSpki(spki).bits
}

/**
 * Reads a SubjectPublicKeyInfo without any key arithmetic, so that a caller can refuse before it pays.
 * Curves are named, points uncompressed; whether a point lies on its curve is found when it is used.
 *
 * @throws SyntaxError when it is not well-formed.
 */
export function describePublicKey(spki: Uint8Array): PublicKeyDescription {
  const { algorithm, parameters, bits } = splitSpki(spki)
  if (algorithm === ecPublicKey) {
    const named = parameters === undefined ? '' : curveOid(parameters)
    const curve = curveNames.find((name) => curves[name].oid === named)
    if (curve === undefined) return { type: 'other', algorithm: `${algorithm} ${named}`.trim() }
    if (bits[0] !== 4 || bits.length !== 1 + 2 * curves[curve].fieldBytes) {
      throw new SyntaxError(`invalid public key: its point on ${curve} is not uncompressed`)
    }
    return { type: 'ec', curve, point: bits }
  }
  if (algorithm === rsaEncryption) {
    const key = readElement(bits).reader()
    const modulus = readUnsigned(key.next())
    const exponent = readUnsigned(key.next())
    key.end()
    const modulusBits = modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24
    return { type: 'rsa', modulusBits, modulus, exponent }
  }
  if (algorithm === ed25519 && parameters === undefined && bits.length === 32) {
    return { type: 'ed25519', point: bits }
  }
  return { type: 'other', algorithm }
}

/**
 * Refuses keys too weak or too costly to accept: allowed are P-256, P-384, P-521, and RSA of 2048 to 8192
 * bits with an odd exponent from 3 to 2^32.
 *
 * @throws RangeError that names the key and what is allowed.
 */
export function checkKeyStrength(key: PublicKeyDescription): void {
  if (key.type === 'ec') return
  if (key.type !== 'rsa') {
    const name = key.type === 'other' ? key.algorithm : key.type
    throw new RangeError(`cannot accept key type ${name}: P-256, P-384, P-521 and RSA are allowed`)
  }
  if (key.modulusBits < 2048 || key.modulusBits > 8192) {
    throw new RangeError(
      `cannot accept an RSA key of ${key.modulusBits} bits: 2048 to 8192 are allowed`,
    )
  }
  const exponent = key.exponent
  const last = exponent[exponent.length - 1] ?? 0
  if (exponent.length > 4 || last % 2 === 0 || (exponent.length === 1 && last < 3)) {
    throw new RangeError('cannot accept an RSA key whose exponent is even, 1, or above 2^32')
  }
}

const keyObjects = new WeakMap<Uint8Array, KeyObject>()

/**
 * The key in a SubjectPublicKeyInfo, ready to verify with. Remembered for as long as this very array lives,
 * which must therefore not change.
 *
 * @throws SyntaxError when OpenSSL refuses it, for instance a point off its curve.
 */
export function publicKeyObject(spki: Uint8Array): KeyObject {
  const known = keyObjects.get(spki)
  if (known !== undefined) return known
  const key = newPublicKeyObject(spki)
  keyObjects.set(spki, key)
  return key
}

/** {@link publicKeyObject} for a key that is used once. */
export function newPublicKeyObject(spki: Uint8Array): KeyObject {
  try {
    // biome-ignore lint/style/noRestrictedGlobals: node:crypto's types take DER as a Buffer only
    return createPublicKey({ key: spki as Buffer, format: 'der', type: 'spki' })
  } catch (cause) {
    throw new SyntaxError('invalid public key: OpenSSL cannot read it', { cause })
  }
}

/** The SubjectPublicKeyInfo of an uncompressed point. */
export function ecPublicKeyInfo(curve: CurveName, point: Uint8Array): Uint8Array {
  return sequence(sequence(oid(ecPublicKey), oid(curves[curve].oid)), bitString(point))
}

/** The SubjectPublicKeyInfo of an RSA key; both numbers are big-endian. */
export function rsaPublicKeyInfo(modulus: Uint8Array, exponent: Uint8Array): Uint8Array {
  const key = sequence(integer(modulus), integer(exponent))
  return sequence(sequence(oid(rsaEncryption), derNull()), bitString(key))
}

function splitSpki(spki: Uint8Array): {
  algorithm: string
  parameters: Uint8Array | undefined
  bits: Uint8Array
} {
  if (spki.length > maxSpkiBytes) {
    throw new SyntaxError(`invalid public key: longer than ${maxSpkiBytes} bytes`)
  }
  const outer = readElement(spki).reader()
  const identifier = outer.expect(derTag.sequence).reader()
  const algorithm = readOid(identifier.next())
  const parameters = identifier.done ? undefined : identifier.next().raw
  identifier.end()
  const bits = readOctetAlignedBits(outer.next())
  outer.end()
  return { algorithm, parameters, bits }
}

function curveOid(parameters: Uint8Array): string {
  const element = readElement(parameters)
  // Anything else is an explicit curve, which the caller of a verifier could choose (CVE-2020-0601).
  return element.tag === derTag.oid ? readOid(element) : 'explicit parameters'
}
