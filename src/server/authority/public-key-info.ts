import type { SigningKey } from '../plugin/key-manager/key-manager.ts'

/** The SubjectPublicKeyInfo of a signing key, DER. */
export function publicKeyInfo(key: SigningKey): Uint8Array {
  return new Uint8Array(key.publicKey.export({ format: 'der', type: 'spki' }))
}
