import { createPublicKey, generateKeyPair, type KeyObject, sign, verify } from 'node:crypto'
import { promisify } from 'node:util'
import { AssayError } from '#base/errors.ts'
import type { KeyType, SigningKey } from './key-manager.ts'

const generate = promisify(generateKeyPair)

const rsaBits = { 'rsa-2048': 2048, 'rsa-3072': 3072, 'rsa-4096': 4096 } as const
const rsaTypes = ['rsa-2048', 'rsa-3072', 'rsa-4096'] as const

/** A private key of that type, in this process's memory. */
export async function generateSoftwareKey(type: KeyType): Promise<KeyObject> {
  const { privateKey } =
    type === 'ec-p256' || type === 'ec-p384'
      ? await generate('ec', { namedCurve: type === 'ec-p256' ? 'P-256' : 'P-384' })
      : await generate('rsa', { modulusLength: rsaBits[type] })
  return privateKey
}

/** The type of a private key, or undefined when it is none of ours. */
export function keyTypeOf(key: KeyObject): KeyType | undefined {
  const { namedCurve, modulusLength } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === 'ec') {
    if (namedCurve === 'prime256v1') return 'ec-p256'
    if (namedCurve === 'secp384r1') return 'ec-p384'
  } else if (key.asymmetricKeyType === 'rsa') {
    return rsaTypes.find((type) => rsaBits[type] === modulusLength)
  }
  return undefined
}

/** A signing key whose private half is in this process. */
export function softwareSigningKey(
  id: string,
  key: { readonly type: KeyType; readonly privateKey: KeyObject },
): SigningKey {
  const { type, privateKey } = key
  const publicKey = createPublicKey(privateKey)
  const hash = type === 'ec-p384' ? 'sha384' : 'sha256'
  const signer = { key: privateKey, dsaEncoding: 'ieee-p1363' } as const
  const verifier = { key: publicKey, dsaEncoding: 'ieee-p1363' } as const
  // RSA takes milliseconds, so it is done in the thread pool; ECDSA costs less than the way there and back.
  const make =
    type !== 'ec-p256' && type !== 'ec-p384'
      ? (message: Uint8Array) =>
          new Promise<Uint8Array>((resolve, reject) => {
            sign(hash, message, signer, (error, signature) =>
              error === null ? resolve(signature) : reject(error),
            )
          })
      : (message: Uint8Array) => sign(hash, message, signer)
  return {
    id,
    type,
    publicKey,
    async sign(given) {
      const message = new Uint8Array(given)
      const signature = await make(message)
      if (verify(hash, message, verifier, signature)) return signature
      throw new AssayError('unavailable', `cannot sign with ${id}: this machine computes wrongly`, {
        reason: 'wrong-signature',
      })
    },
  }
}
