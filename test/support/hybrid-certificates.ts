import { sign } from 'node:crypto'
import {
  altAlgorithmExtension,
  alternativeMessage,
  altPublicKeyExtension,
  withAltSignature,
} from '../../src/pq-crypto/alternative-signature.ts'
import type { MlDsaKeyPair, MlDsaParameterSet } from '../../src/pq-crypto/ml-dsa.ts'
import { mlDsaKeyPairOfSeed } from '../../src/pq-crypto/ml-dsa.ts'
import {
  type CertificateOptions,
  type Issued,
  newAuthority,
  newIntermediate,
  newSvid,
} from './certificates.ts'

// Hybrid certificates for tests, right and wrong ones.

/** A CA with an ML-DSA key beside the classical one. */
export interface HybridAuthority extends Issued {
  readonly pq: MlDsaKeyPair
}

/** The same key for the same number; making a key costs nothing of note. */
export const pqKey = (parameterSet: MlDsaParameterSet, number: number): MlDsaKeyPair =>
  mlDsaKeyPairOfSeed(parameterSet, new Uint8Array(32).fill(number))

let made = 0

/** What to give any certificate for an alternative signature by `signer`, and, of a CA, its own key. */
export function hybrid(signer: MlDsaKeyPair, own?: MlDsaKeyPair): CertificateOptions {
  return {
    extensions: [
      ...(own === undefined ? [] : [altPublicKeyExtension(own.publicKey)]),
      altAlgorithmExtension(signer.parameterSet),
    ],
    finish: (tbs) => withAltSignature(tbs, sign(null, alternativeMessage(tbs), signer.privateKey)),
  }
}

export function newHybridAuthority(
  trustDomain: string,
  parameterSet: MlDsaParameterSet = 'ml-dsa-44',
): HybridAuthority {
  const pq = pqKey(parameterSet, ++made)
  return { ...newAuthority(trustDomain, hybrid(pq, pq)), pq }
}

export function newHybridIntermediate(
  issuer: HybridAuthority,
  trustDomain: string,
  parameterSet: MlDsaParameterSet = 'ml-dsa-44',
): HybridAuthority {
  const pq = pqKey(parameterSet, ++made)
  return { ...newIntermediate(issuer, trustDomain, hybrid(issuer.pq, pq)), pq }
}

export function newHybridSvid(
  issuer: HybridAuthority,
  spiffeId: string,
  options?: CertificateOptions,
): Issued {
  return newSvid(issuer, spiffeId, { ...hybrid(issuer.pq), ...options })
}
