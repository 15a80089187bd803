import { createHash } from 'node:crypto'
import type { CurveName } from '#pki/public-key.ts'

/** A hash the TPM and OpenSSL both know, by OpenSSL's name. */
export type HashAlgorithm = 'sha1' | 'sha256' | 'sha384' | 'sha512'

/** TPM_ALG_ID and digest length of each hash (TPM 2.0 Part 2 §6.3). */
const hashes: Record<HashAlgorithm, { readonly id: number; readonly bytes: number }> = {
  sha1: { id: 0x0004, bytes: 20 },
  sha256: { id: 0x000b, bytes: 32 },
  sha384: { id: 0x000c, bytes: 48 },
  sha512: { id: 0x000d, bytes: 64 },
}
const hashNames = new Map(
  Object.entries(hashes).map(([name, { id }]) => [id, name as HashAlgorithm] as const),
)

/** The TPM_ALG_ID of a hash. */
export const hashId = (hash: HashAlgorithm): number => hashes[hash].id

/** The length of a hash's digest in bytes. */
export const digestBytes = (hash: HashAlgorithm): number => hashes[hash].bytes

/** @throws RangeError when `id` is not the TPM_ALG_ID of a hash in {@link HashAlgorithm}. */
export function parseHashId(id: number): HashAlgorithm {
  const name = hashNames.get(id)
  if (name === undefined)
    throw new RangeError(`unsupported TPM hash algorithm 0x${id.toString(16)}`)
  return name
}

/** The digest over `parts` in order. */
export function digest(hash: HashAlgorithm, ...parts: readonly Uint8Array[]): Uint8Array {
  const running = createHash(hash)
  for (const part of parts) running.update(part)
  return new Uint8Array(running.digest())
}

/** What TPM 2.0 adds to a curve: its TPM_ECC_CURVE (Part 2 §6.4). */
export interface CurveFacts {
  readonly id: number
  /** Length of a coordinate. */
  readonly fieldBytes: number
  readonly opensslName: string
  /** The order of its base point (FIPS 186-4 D.1.2). */
  readonly order: bigint
}

/** The curves there are, by their JOSE names. */
export const curves: Record<CurveName, CurveFacts> = {
  'P-256': {
    id: 0x0003,
    fieldBytes: 32,
    opensslName: 'prime256v1',
    order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  },
  'P-384': {
    id: 0x0004,
    fieldBytes: 48,
    opensslName: 'secp384r1',
    order:
      0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  },
  'P-521': {
    id: 0x0005,
    fieldBytes: 66,
    opensslName: 'secp521r1',
    order:
      0x01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409n,
  },
}
const curveNames = new Map(
  Object.entries(curves).map(([name, { id }]) => [id, name as CurveName] as const),
)

/** @throws RangeError when `id` is not the TPM_ECC_CURVE of a curve in {@link curves}. */
export function parseCurveId(id: number): CurveName {
  const name = curveNames.get(id)
  if (name === undefined) throw new RangeError(`unsupported TPM curve 0x${id.toString(16)}`)
  return name
}
