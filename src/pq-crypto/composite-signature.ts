import { createPublicKey, hash, verify } from 'node:crypto'
import { concatBytes, utf8Bytes } from '#base/bytes.ts'
import { isMlDsaSignedBy, type MlDsaParameterSet, mlDsaParameters } from './ml-dsa.ts'

// Composite ML-DSA (draft-ietf-lamps-pq-composite-sigs-19): one signature that is two. Verified only, and only for
// callers that ask for it: it is a draft, and nothing that Assay issues carries it.

/** The combinations with ECDSA on the curves Assay knows (draft-ietf-lamps-pq-composite-sigs-19 §6). */
export const compositeAlgorithms = {
  'MLDSA44-ECDSA-P256-SHA256': {
    oid: '1.3.6.1.5.5.7.6.40',
    mlDsa: 'ml-dsa-44',
    curve: 'P-256',
    ecdsaHash: 'sha256',
    preHash: 'sha256',
  },
  'MLDSA65-ECDSA-P256-SHA512': {
    oid: '1.3.6.1.5.5.7.6.45',
    mlDsa: 'ml-dsa-65',
    curve: 'P-256',
    ecdsaHash: 'sha256',
    preHash: 'sha512',
  },
  'MLDSA65-ECDSA-P384-SHA512': {
    oid: '1.3.6.1.5.5.7.6.46',
    mlDsa: 'ml-dsa-65',
    curve: 'P-384',
    ecdsaHash: 'sha384',
    preHash: 'sha512',
  },
  'MLDSA87-ECDSA-P384-SHA512': {
    oid: '1.3.6.1.5.5.7.6.49',
    mlDsa: 'ml-dsa-87',
    curve: 'P-384',
    ecdsaHash: 'sha384',
    preHash: 'sha512',
  },
} as const satisfies Readonly<
  Record<
    string,
    {
      readonly oid: string
      readonly mlDsa: MlDsaParameterSet
      readonly curve: string
      readonly ecdsaHash: string
      readonly preHash: string
    }
  >
>

export type CompositeAlgorithm = keyof typeof compositeAlgorithms

/** The first bytes of everything that is signed (draft-ietf-lamps-pq-composite-sigs-19 §2.2). */
const prefix = utf8Bytes('CompositeAlgorithmSignatures2025')

/** Longest context (FIPS 204 §5.2), in bytes. */
const maxContextBytes = 255

/**
 * Whether both halves of a composite signature verify. `publicKey` is the ML-DSA key and then the uncompressed
 * point, `signature` the ML-DSA signature and then the ECDSA signature in DER, as the draft has them.
 *
 * @throws RangeError unless `experimental` is true: the draft may still change.
 */
export function isCompositeSignedBy(
  algorithm: CompositeAlgorithm,
  signed: {
    readonly publicKey: Uint8Array
    readonly message: Uint8Array
    readonly signature: Uint8Array
    readonly context?: Uint8Array
    readonly experimental: boolean
  },
): boolean {
  const { publicKey, message, signature, context = new Uint8Array(), experimental } = signed
  if (!experimental) {
    throw new RangeError(
      'cannot verify a composite signature: it is a draft, ask for `experimental`',
    )
  }
  if (context.length > maxContextBytes) return false
  const { mlDsa, curve, ecdsaHash, preHash } = compositeAlgorithms[algorithm]
  const { publicKeyBytes, signatureBytes } = mlDsaParameters[mlDsa]
  const point = publicKey.subarray(publicKeyBytes)
  const ecdsaSignature = signature.subarray(signatureBytes)
  if (point[0] !== 4 || ecdsaSignature.length === 0) return false
  const label = utf8Bytes(`COMPSIG-${algorithm}`)
  const digest = hash(preHash, message, 'buffer')
  const input = concatBytes(prefix, label, Uint8Array.of(context.length), context, digest)
  const mlDsaKey = rawKey(publicKey.subarray(0, publicKeyBytes), { asymmetricKeyType: mlDsa })
  const ecKey = rawKey(point, { asymmetricKeyType: 'ec', namedCurve: curve })
  if (mlDsaKey === undefined || ecKey === undefined) return false
  const mlDsaHolds = isMlDsaSignedBy(
    { parameterSet: mlDsa, key: mlDsaKey },
    { message: input, signature: signature.subarray(0, signatureBytes), context: label },
  )
  return mlDsaHolds && verify(ecdsaHash, input, ecKey, ecdsaSignature)
}

function rawKey(
  key: Uint8Array,
  kind: { readonly asymmetricKeyType: string; readonly namedCurve?: string },
): ReturnType<typeof createPublicKey> | undefined {
  try {
    return createPublicKey({ key, format: 'raw-public', ...kind } as never)
  } catch {
    // Of the wrong length, or a point off the curve: no signature is by such a key.
    return undefined
  }
}
