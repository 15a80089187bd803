import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import { concatBytes, utf8Bytes } from '#base/bytes.ts'
import { digest, digestBytes, type HashAlgorithm } from './algorithms.ts'
import { u32 } from './marshal.ts'

/** What a derived key is for, and whom it is between. Labels are ASCII; a zero byte follows them. */
export interface DerivationContext {
  readonly label: string
  /** contextU or PartyUInfo. */
  readonly u: Uint8Array
  /** contextV or PartyVInfo. */
  readonly v: Uint8Array
}

/** KDFa (TPM 2.0 Part 1 §11.4.10.2): SP 800-108 in counter mode with HMAC. `bits` is a multiple of 8. */
export function kdfa(
  hash: HashAlgorithm,
  key: Uint8Array,
  context: DerivationContext,
  bits: number,
): Uint8Array {
  const { label, u, v } = labelled(context)
  return blocks(hash, bits, (counter) => hmac(hash, key, counter, label, u, v, u32(bits)))
}

/** KDFe (Part 1 §11.4.10.3): SP 800-56A with a hash, over the x-coordinate `z` of an ECDH exchange. */
export function kdfe(
  hash: HashAlgorithm,
  z: Uint8Array,
  context: DerivationContext,
  bits: number,
): Uint8Array {
  const { label, u, v } = labelled(context)
  return blocks(hash, bits, (counter) => digest(hash, counter, z, label, u, v))
}

/** HMAC over `parts` in order. */
export function hmac(
  hash: HashAlgorithm,
  key: Uint8Array,
  ...parts: readonly Uint8Array[]
): Uint8Array {
  const running = createHmac(hash, key)
  for (const part of parts) running.update(part)
  return new Uint8Array(running.digest())
}

/** AES in CFB mode (Part 1 §11.4.12), by the length of `key`. */
export function encryptCfb(key: Uint8Array, iv: Uint8Array, data: Uint8Array): Uint8Array {
  return new Uint8Array(createCipheriv(`aes-${key.length * 8}-cfb`, key, iv).update(data))
}

/** The inverse of {@link encryptCfb}. */
export function decryptCfb(key: Uint8Array, iv: Uint8Array, data: Uint8Array): Uint8Array {
  return new Uint8Array(createDecipheriv(`aes-${key.length * 8}-cfb`, key, iv).update(data))
}

/** A label as the TPM hashes it. */
export const labelBytes = (label: string): Uint8Array => utf8Bytes(`${label}\0`)

const labelled = ({ label, u, v }: DerivationContext) => ({ label: labelBytes(label), u, v })

function blocks(
  hash: HashAlgorithm,
  bits: number,
  block: (counter: Uint8Array) => Uint8Array,
): Uint8Array {
  const made: Uint8Array[] = []
  for (let counter = 1; made.length * digestBytes(hash) * 8 < bits; counter++)
    made.push(block(u32(counter)))
  return concatBytes(...made).subarray(0, bits / 8)
}
