import { constants, createECDH, publicEncrypt } from 'node:crypto'
import { concatBytes } from '#base/bytes.ts'
import type { Random } from '#base/random.ts'
import { curves, digestBytes } from './algorithms.ts'
import { kdfe, labelBytes } from './key-derivation.ts'
import { sized } from './marshal.ts'
import type { PublicArea } from './public-area.ts'
import { padLeft, publicKeyOf, uncompressedPoint } from './public-key.ts'

/** What a secret is for: the seed of a credential, or the salt of a session. */
export type SecretUse = 'IDENTITY' | 'SECRET'

/** A fresh secret, as long as the digest of the key's name algorithm, and how the TPM learns it. */
export interface SharedSecret {
  readonly secret: Uint8Array
  /** Content of a TPM2B_ENCRYPTED_SECRET. */
  readonly encrypted: Uint8Array
}

/**
 * Shares a secret with the TPM that holds the decryption key `key` (TPM 2.0 Part 1 annexes B.10 and C.6): by
 * RSA-OAEP, or by one-pass ECDH with an ephemeral key.
 *
 * @throws SyntaxError or an OpenSSL error when `key` is not a key.
 */
export function shareSecret(key: PublicArea, use: SecretUse, random: Random): SharedSecret {
  const secretBytes = digestBytes(key.nameAlgorithm)
  if (key.type === 'rsa') {
    const secret = random.bytes(secretBytes)
    const padding = constants.RSA_PKCS1_OAEP_PADDING
    const options = { key: publicKeyOf(key), padding, oaepHash: key.nameAlgorithm }
    const encrypted = publicEncrypt({ ...options, oaepLabel: labelBytes(use) }, secret)
    return { secret, encrypted: new Uint8Array(encrypted) }
  }
  const { opensslName, fieldBytes } = curves[key.curve]
  const ephemeral = createECDH(opensslName)
  const point = new Uint8Array(ephemeral.generateKeys())
  const x = point.subarray(1, 1 + fieldBytes)
  const y = point.subarray(1 + fieldBytes)
  const z = padLeft(ephemeral.computeSecret(uncompressedPoint(key)), fieldBytes)
  const context = { label: use, u: x, v: padLeft(key.x, fieldBytes) }
  return {
    secret: kdfe(key.nameAlgorithm, z, context, secretBytes * 8),
    encrypted: concatBytes(sized(x), sized(y)),
  }
}
