import {
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto'
import { promisify } from 'node:util'
import {
  bitString,
  derTag,
  oid,
  readElement,
  readOctetAlignedBits,
  readOid,
  sequence,
} from '#pki/der.ts'

/** The parameter sets of ML-DSA (FIPS 204 §4), by the names Node has for them. */
export type MlDsaParameterSet = 'ml-dsa-44' | 'ml-dsa-65' | 'ml-dsa-87'

export interface MlDsaParameters {
  /** As algorithm of a key and of a signature alike; it takes no parameters (RFC 9881 §2). */
  readonly oid: string
  /** FIPS 204 Table 2. */
  readonly publicKeyBytes: number
  /** FIPS 204 Table 2. */
  readonly signatureBytes: number
  /** NIST's category of strength (FIPS 204 Table 1): 2 is SHA-256's collisions, 3 AES-192, 5 AES-256. */
  readonly securityCategory: number
}

export const mlDsaParameters: Readonly<Record<MlDsaParameterSet, MlDsaParameters>> = {
  'ml-dsa-44': {
    oid: '2.16.840.1.101.3.4.3.17',
    publicKeyBytes: 1312,
    signatureBytes: 2420,
    securityCategory: 2,
  },
  'ml-dsa-65': {
    oid: '2.16.840.1.101.3.4.3.18',
    publicKeyBytes: 1952,
    signatureBytes: 3309,
    securityCategory: 3,
  },
  'ml-dsa-87': {
    oid: '2.16.840.1.101.3.4.3.19',
    publicKeyBytes: 2592,
    signatureBytes: 4627,
    securityCategory: 5,
  },
}

export const mlDsaParameterSets = Object.keys(mlDsaParameters) as readonly MlDsaParameterSet[]

/** Bytes of the seed a private key is made of (FIPS 204 Algorithm 1, ξ). It is the whole secret. */
const mlDsaSeedBytes = 32

/** A public key and its parameter set. */
export interface MlDsaPublicKey {
  readonly parameterSet: MlDsaParameterSet
  readonly key: KeyObject
}

export interface MlDsaKeyPair {
  readonly parameterSet: MlDsaParameterSet
  readonly privateKey: KeyObject
  /** SubjectPublicKeyInfo, DER (RFC 9881 §4). */
  readonly publicKey: Uint8Array
}

const generate = promisify(generateKeyPair)

/** A fresh key pair, made in the thread pool. */
export async function generateMlDsaKeyPair(parameterSet: MlDsaParameterSet): Promise<MlDsaKeyPair> {
  const { privateKey, publicKey } = await generate(parameterSet)
  return { parameterSet, privateKey, publicKey: publicKeyInfo(parameterSet, publicKey) }
}

/**
 * The key pair a seed gives, always the same one.
 *
 * @throws RangeError unless the seed has {@link mlDsaSeedBytes}.
 */
export function mlDsaKeyPairOfSeed(
  parameterSet: MlDsaParameterSet,
  seed: Uint8Array,
): MlDsaKeyPair {
  if (seed.length !== mlDsaSeedBytes) {
    throw new RangeError(`cannot make a key of a seed of ${seed.length} bytes, not 32`)
  }
  const privateKey = createPrivateKey({
    key: seed,
    format: 'raw-seed',
    asymmetricKeyType: parameterSet,
  })
  return {
    parameterSet,
    privateKey,
    publicKey: publicKeyInfo(parameterSet, createPublicKey(privateKey)),
  }
}

/** The seed of a private key: a secret, of which the caller clears the copy. */
export function mlDsaSeed({ privateKey }: MlDsaKeyPair): Uint8Array {
  const exported = privateKey.export({ format: 'raw-seed' })
  const seed = Uint8Array.from(exported)
  exported.fill(0)
  return seed
}

/** DER of the AlgorithmIdentifier of keys and signatures. */
export const mlDsaAlgorithm: Readonly<Record<MlDsaParameterSet, Uint8Array>> = {
  'ml-dsa-44': sequence(oid(mlDsaParameters['ml-dsa-44'].oid)),
  'ml-dsa-65': sequence(oid(mlDsaParameters['ml-dsa-65'].oid)),
  'ml-dsa-87': sequence(oid(mlDsaParameters['ml-dsa-87'].oid)),
}

/**
 * Reads the AlgorithmIdentifier of an ML-DSA key or signature.
 *
 * @throws SyntaxError when it is not well-formed or has parameters; RangeError when it is another algorithm.
 */
export function parseMlDsaAlgorithm(identifier: Uint8Array): MlDsaParameterSet {
  const reader = readElement(identifier).reader()
  const name = readOid(reader.next())
  const parameterSet = mlDsaParameterSets.find((set) => mlDsaParameters[set].oid === name)
  if (parameterSet === undefined) throw new RangeError(`algorithm ${name} is not ML-DSA`)
  if (!reader.done) throw new SyntaxError(`${parameterSet} takes no parameters`)
  return parameterSet
}

const publicKeys = new WeakMap<Uint8Array, MlDsaPublicKey>()

/**
 * Reads the SubjectPublicKeyInfo of an ML-DSA key (RFC 9881 §4). Remembered for as long as this very array
 * lives, which must therefore not change.
 *
 * @throws SyntaxError when it is not well-formed; RangeError when it is a key of another kind.
 */
export function parseMlDsaPublicKey(spki: Uint8Array): MlDsaPublicKey {
  const known = publicKeys.get(spki)
  if (known !== undefined) return known
  const outer = readElement(spki).reader()
  const parameterSet = parseMlDsaAlgorithm(outer.expect(derTag.sequence).raw)
  const bits = readOctetAlignedBits(outer.next())
  outer.end()
  const { publicKeyBytes } = mlDsaParameters[parameterSet]
  if (bits.length !== publicKeyBytes) {
    throw new SyntaxError(
      `a public key of ${parameterSet} has ${bits.length} bytes, not ${publicKeyBytes}`,
    )
  }
  const key = createPublicKey({ key: bits, format: 'raw-public', asymmetricKeyType: parameterSet })
  const parsed = { parameterSet, key }
  publicKeys.set(spki, parsed)
  return parsed
}

/**
 * Signs `message` (FIPS 204 Algorithm 2, hedged, with an empty context as RFC 9881 §3 wants it) in the thread
 * pool: it takes a third of a millisecond on average, and now and then ten times that.
 */
export function signMlDsa(privateKey: KeyObject, message: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    sign(null, message, privateKey, (error, signature) => {
      if (error === null) resolve(new Uint8Array(signature))
      else reject(error)
    })
  })
}

/** {@link signMlDsa} in this thread: for one who signs now and then, and has nobody waiting. */
export const signMlDsaNow = (privateKey: KeyObject, message: Uint8Array): Uint8Array =>
  new Uint8Array(sign(null, message, privateKey))

/** {@link isMlDsaSignedBy} with an empty context, in the thread pool. */
export function isMlDsaSignedByLater(
  { parameterSet, key }: MlDsaPublicKey,
  { message, signature }: { readonly message: Uint8Array; readonly signature: Uint8Array },
): Promise<boolean> {
  if (signature.length !== mlDsaParameters[parameterSet].signatureBytes) {
    return Promise.resolve(false)
  }
  return new Promise((resolve, reject) => {
    verify(null, message, key, signature, (error, isSigned) => {
      if (error === null) resolve(isSigned)
      else reject(error)
    })
  })
}

/** Whether `signature` over `message` is by `key`: FIPS 204 Algorithm 3, with `context` or an empty one. */
export function isMlDsaSignedBy(
  { parameterSet, key }: MlDsaPublicKey,
  signed: {
    readonly message: Uint8Array
    readonly signature: Uint8Array
    /** At most 255 bytes. */
    readonly context?: Uint8Array
  },
): boolean {
  const { message, signature, context } = signed
  if (signature.length !== mlDsaParameters[parameterSet].signatureBytes) return false
  return verify(null, message, context === undefined ? key : { key, context }, signature)
}

function publicKeyInfo(parameterSet: MlDsaParameterSet, key: KeyObject): Uint8Array {
  return sequence(mlDsaAlgorithm[parameterSet], bitString(key.export({ format: 'raw-public' })))
}
