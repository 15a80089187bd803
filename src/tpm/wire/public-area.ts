import { concatBytes } from '#base/bytes.ts'
import type { CurveName } from '#pki/public-key.ts'
import {
  curves,
  digest,
  type HashAlgorithm,
  hashId,
  parseCurveId,
  parseHashId,
} from './algorithms.ts'
import { algorithm, permanentHandle } from './constants.ts'
import { type Reader, sized, u16, u32 } from './marshal.ts'

/** The signing scheme a key is bound to: its TPM_ALG_ID and hash. */
export interface SigningScheme {
  readonly algorithm: number
  readonly hash: HashAlgorithm
}

/** What RSA and ECC keys have in common. */
interface PublicAreaBase {
  readonly nameAlgorithm: HashAlgorithm
  /** TPMA_OBJECT, bits of `objectAttribute`. */
  readonly attributes: number
  /** authPolicy: a digest, or empty. */
  readonly policy: Uint8Array
  /** Key length of the AES-CFB a storage key protects its children with; undefined for a signing key. */
  readonly symmetricBits: number | undefined
  /** Undefined: the key may be used with any. */
  readonly scheme: SigningScheme | undefined
}

/** `unique` of an RSA key; as part of a template zeros or nothing. */
export interface RsaPublicArea extends PublicAreaBase {
  readonly type: 'rsa'
  readonly bits: number
  readonly modulus: Uint8Array
}

/** `unique` of an ECC key; as part of a template anything, and it makes another key. */
export interface EccPublicArea extends PublicAreaBase {
  readonly type: 'ecc'
  readonly curve: CurveName
  readonly x: Uint8Array
  readonly y: Uint8Array
}

/** TPMT_PUBLIC of an asymmetric key (TPM 2.0 Part 2 §12.2.4). RSA keys have the exponent 65537. */
export type PublicArea = RsaPublicArea | EccPublicArea

/** Longest public area that is read, in bytes; an RSA 4096 key with a SHA-512 policy takes 604. */
export const maxPublicAreaBytes = 1024

/**
 * `type(2) ‖ nameAlg(2) ‖ attributes(4) ‖ TPM2B policy ‖ parameters ‖ unique`.
 */
export function writePublicArea(area: PublicArea): Uint8Array {
  const common = [
    u16(hashId(area.nameAlgorithm)),
    u32(area.attributes),
    sized(area.policy),
    area.symmetricBits === undefined
      ? u16(algorithm.null)
      : concatBytes(u16(algorithm.aes), u16(area.symmetricBits), u16(algorithm.cfb)),
    area.scheme === undefined
      ? u16(algorithm.null)
      : concatBytes(u16(area.scheme.algorithm), u16(hashId(area.scheme.hash))),
  ]
  return area.type === 'rsa'
    ? concatBytes(u16(algorithm.rsa), ...common, u16(area.bits), u32(0), sized(area.modulus))
    : concatBytes(
        u16(algorithm.ecc),
        ...common,
        u16(curves[area.curve].id),
        u16(algorithm.null),
        sized(area.x),
        sized(area.y),
      )
}

/** @throws RangeError for anything but an RSA or ECC key with parameters as in {@link PublicArea}. */
export function readPublicArea(reader: Reader): PublicArea {
  const type = reader.u16()
  if (type !== algorithm.rsa && type !== algorithm.ecc)
    throw new RangeError(
      `unsupported TPM key type 0x${type.toString(16)}: it is neither RSA nor ECC`,
    )
  const base = {
    nameAlgorithm: parseHashId(reader.u16()),
    attributes: reader.u32(),
    policy: reader.sized(64),
    symmetricBits: readSymmetric(reader),
    scheme: readScheme(reader),
  }
  if (type === algorithm.rsa) {
    const bits = reader.u16()
    const exponent = reader.u32()
    if (exponent !== 0)
      throw new RangeError(`unsupported RSA exponent ${exponent}: TPM keys use 65537`)
    return { ...base, type: 'rsa', bits, modulus: reader.sized(512) }
  }
  const curve = parseCurveId(reader.u16())
  if (reader.u16() !== algorithm.null)
    throw new RangeError('unsupported key derivation scheme of an ECC key')
  const { fieldBytes } = curves[curve]
  return { ...base, type: 'ecc', curve, x: reader.sized(fieldBytes), y: reader.sized(fieldBytes) }
}

function readSymmetric(reader: Reader): number | undefined {
  const id = reader.u16()
  if (id === algorithm.null) return undefined
  const bits = reader.u16()
  if (id !== algorithm.aes || (bits !== 128 && bits !== 256) || reader.u16() !== algorithm.cfb)
    throw new RangeError(
      'unsupported symmetric algorithm of a storage key: AES-128 and AES-256 in CFB mode are known',
    )
  return bits
}

function readScheme(reader: Reader): SigningScheme | undefined {
  const id = reader.u16()
  if (id === algorithm.null) return undefined
  if (id !== algorithm.ecdsa && id !== algorithm.rsaSsa && id !== algorithm.rsaPss)
    throw new RangeError(`unsupported scheme 0x${id.toString(16)} of a key`)
  return { algorithm: id, hash: parseHashId(reader.u16()) }
}

/** The Name of an object (TPM 2.0 Part 1 §16): `nameAlg(2) ‖ H(TPMT_PUBLIC)`. */
export function nameOf(area: PublicArea): Uint8Array {
  return concatBytes(
    u16(hashId(area.nameAlgorithm)),
    digest(area.nameAlgorithm, writePublicArea(area)),
  )
}

/**
 * The Qualified Name of a primary key of the endorsement hierarchy (Part 1 §16):
 * `nameAlg(2) ‖ H(TPM_RH_ENDORSEMENT(4) ‖ Name)`. No key of another hierarchy or below a parent has it.
 */
export function endorsementQualifiedName(area: PublicArea): Uint8Array {
  return concatBytes(
    u16(hashId(area.nameAlgorithm)),
    digest(area.nameAlgorithm, u32(permanentHandle.endorsement), nameOf(area)),
  )
}
