import { type KeyObject, sign } from 'node:crypto'
import { createCsr } from '#pki/csr.ts'
import { attributeType } from '#pki/name.ts'
import type { KeyPair } from '#pki/private-key.ts'

/** What SPIRE's agents put there; servers take only the public key. */
export const requestSubject = [
  { type: attributeType.country, value: 'US' },
  { type: attributeType.organization, value: 'SPIRE' },
]

/** A certification request for a key pair, DER. */
export function certificateRequest(pair: KeyPair): Uint8Array {
  return createCsr({
    publicKey: pair.publicKey,
    sign: (tbs, hash) => signature(pair.privateKey, tbs, hash),
    subject: requestSubject,
  })
}

function signature(key: KeyObject, tbs: Uint8Array, hash: string): Uint8Array {
  return new Uint8Array(sign(hash, tbs, key))
}
