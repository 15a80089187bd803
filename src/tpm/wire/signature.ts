import { concatBytes } from '#base/bytes.ts'
import { type HashAlgorithm, hashId, parseHashId } from './algorithms.ts'
import { algorithm } from './constants.ts'
import { type Reader, sized, u16 } from './marshal.ts'

/** A TPMT_SIGNATURE (TPM 2.0 Part 2 §11.3.4). ECDSA numbers may lack their leading zeros. */
export type Signature =
  | {
      readonly algorithm: typeof algorithm.ecdsa
      readonly hash: HashAlgorithm
      readonly r: Uint8Array
      readonly s: Uint8Array
    }
  | {
      readonly algorithm: typeof algorithm.rsaSsa | typeof algorithm.rsaPss
      readonly hash: HashAlgorithm
      readonly bytes: Uint8Array
    }

/** Longest signature that is read, in bytes. */
export const maxSignatureBytes = 600

/** @throws RangeError for anything but ECDSA, RSASSA and RSAPSS. Whether it fits a key is not checked. */
export function readSignature(reader: Reader): Signature {
  const id = reader.u16()
  switch (id) {
    case algorithm.ecdsa:
      return {
        algorithm: id,
        hash: parseHashId(reader.u16()),
        r: reader.sized(66),
        s: reader.sized(66),
      }
    case algorithm.rsaSsa:
    case algorithm.rsaPss:
      return { algorithm: id, hash: parseHashId(reader.u16()), bytes: reader.sized(512) }
    default:
      throw new RangeError(`unsupported signature algorithm 0x${id.toString(16)}`)
  }
}

/** `sigAlg(2) ‖ hash(2) ‖ TPM2B r ‖ TPM2B s`, or with one TPM2B for RSA. */
export function writeSignature(signature: Signature): Uint8Array {
  const head = concatBytes(u16(signature.algorithm), u16(hashId(signature.hash)))
  return signature.algorithm === algorithm.ecdsa
    ? concatBytes(head, sized(signature.r), sized(signature.s))
    : concatBytes(head, sized(signature.bytes))
}
