import { constants, type KeyObject, verify } from 'node:crypto'
import { derNull, derTag, oid, readElement, readOid, readSmallInteger, sequence } from './der.ts'
import type { PublicKeyDescription } from './public-key.ts'

/** Hash functions that signatures may use, by OpenSSL's names. */
export type HashName = 'sha256' | 'sha384' | 'sha512'

/** How a certificate or a request is signed. SHA-1 and older are not among the choices. */
export type SignatureAlgorithm =
  | { readonly type: 'ec' | 'rsa'; readonly hash: HashName }
  | { readonly type: 'rsa-pss'; readonly hash: HashName; readonly saltBytes: number }
  | { readonly type: 'ed25519' }

const algorithms: ReadonlyMap<string, SignatureAlgorithm> = new Map<string, SignatureAlgorithm>([
  ['1.2.840.10045.4.3.2', { type: 'ec', hash: 'sha256' }],
  ['1.2.840.10045.4.3.3', { type: 'ec', hash: 'sha384' }],
  ['1.2.840.10045.4.3.4', { type: 'ec', hash: 'sha512' }],
  ['1.2.840.113549.1.1.11', { type: 'rsa', hash: 'sha256' }],
  ['1.2.840.113549.1.1.12', { type: 'rsa', hash: 'sha384' }],
  ['1.2.840.113549.1.1.13', { type: 'rsa', hash: 'sha512' }],
  ['1.3.101.112', { type: 'ed25519' }],
])

const rsaPss = '1.2.840.113549.1.1.10'
const mgf1 = '1.2.840.113549.1.1.8'
const hashes: ReadonlyMap<string, HashName> = new Map([
  ['2.16.840.1.101.3.4.2.1', 'sha256'],
  ['2.16.840.1.101.3.4.2.2', 'sha384'],
  ['2.16.840.1.101.3.4.2.3', 'sha512'],
])

/** The object identifier an AlgorithmIdentifier begins with. */
function signatureAlgorithmOid(identifier: Uint8Array): string {
  return readOid(readElement(identifier).reader().next())
}

/**
 * Reads the AlgorithmIdentifier of a signature (RFC 5758 §3, RFC 4055 §3, RFC 8410 §3).
 *
 * @throws SyntaxError when its parameters are not well-formed; RangeError when it is not allowed.
 */
export function parseSignatureAlgorithm(identifier: Uint8Array): SignatureAlgorithm {
  const reader = readElement(identifier).reader()
  const name = readOid(reader.next())
  const parameters = reader.done ? undefined : reader.next()
  reader.end()
  if (name === rsaPss && parameters !== undefined) return parsePssParameters(parameters.raw)
  const algorithm = algorithms.get(name)
  if (algorithm === undefined) throw new RangeError(`cannot accept signature algorithm ${name}`)
  if (parameters !== undefined && (algorithm.type !== 'rsa' || parameters.tag !== derTag.null)) {
    throw new SyntaxError(`invalid signature algorithm ${name}: it takes no parameters`)
  }
  return algorithm
}

/** The AlgorithmIdentifier and hash that go with a key: the hash is as strong as the curve, SHA-256 for RSA. */
export function signatureAlgorithmFor(key: PublicKeyDescription): {
  readonly identifier: Uint8Array
  readonly hash: HashName
} {
  switch (key.type) {
    case 'ec':
      return signingAlgorithms[key.curve]
    case 'rsa':
      return signingAlgorithms.rsa
    case 'ed25519':
    case 'other':
      throw new RangeError(
        `cannot sign a request with key type ${key.type === 'other' ? key.algorithm : key.type}`,
      )
  }
}

const signingAlgorithms = {
  'P-256': { identifier: sequence(oid('1.2.840.10045.4.3.2')), hash: 'sha256' },
  'P-384': { identifier: sequence(oid('1.2.840.10045.4.3.3')), hash: 'sha384' },
  'P-521': { identifier: sequence(oid('1.2.840.10045.4.3.4')), hash: 'sha512' },
  rsa: { identifier: sequence(oid('1.2.840.113549.1.1.11'), derNull()), hash: 'sha256' },
} as const

/** A signature to check, with what it is said to be over. */
export interface SignedBytes {
  readonly algorithm: SignatureAlgorithm
  readonly message: Uint8Array
  /** ECDSA: DER. */
  readonly signature: Uint8Array
}

/** Whether `signed` was made by `key`; false, too, when the algorithm does not fit the key's type. */
export function isSignedBy(key: KeyObject, signed: SignedBytes): boolean {
  const { algorithm, message, signature } = signed
  const keyType = key.asymmetricKeyType
  switch (algorithm.type) {
    case 'ec':
      return keyType === 'ec' && verify(algorithm.hash, message, key, signature)
    case 'rsa':
      return keyType === 'rsa' && verify(algorithm.hash, message, key, signature)
    case 'rsa-pss': {
      if (keyType !== 'rsa' && keyType !== 'rsa-pss') return false
      const padding = constants.RSA_PKCS1_PSS_PADDING
      return verify(
        algorithm.hash,
        message,
        { key, padding, saltLength: algorithm.saltBytes },
        signature,
      )
    }
    case 'ed25519':
      return keyType === 'ed25519' && verify(null, message, key, signature)
  }
}

function parsePssParameters(der: Uint8Array): SignatureAlgorithm {
  const parameters = readElement(der).reader()
  const hash = parameters.optional(0xa0)
  const mask = parameters.optional(0xa1)
  const salt = parameters.optional(0xa2)
  const trailer = parameters.optional(0xa3)
  parameters.end()
  // The defaults are SHA-1, which is not accepted, so both must be there.
  if (hash === undefined || mask === undefined)
    throw new RangeError('cannot accept RSASSA-PSS over SHA-1')
  const hashName = readHash(hash.content)
  const maskReader = readElement(mask.content).reader()
  if (readOid(maskReader.next()) !== mgf1 || readHash(maskReader.next().raw) !== hashName) {
    throw new RangeError('cannot accept RSASSA-PSS whose mask is not MGF1 over the same hash')
  }
  maskReader.end()
  const saltBytes = salt === undefined ? 20 : readSmallInteger(readElement(salt.content))
  if (saltBytes > 512)
    throw new RangeError(`cannot accept RSASSA-PSS with a salt of ${saltBytes} bytes`)
  if (trailer !== undefined && readSmallInteger(readElement(trailer.content)) !== 1) {
    throw new RangeError('cannot accept RSASSA-PSS with another trailer field than 1')
  }
  return { type: 'rsa-pss', hash: hashName, saltBytes }
}

function readHash(identifier: Uint8Array): HashName {
  const name = signatureAlgorithmOid(identifier)
  const hash = hashes.get(name)
  if (hash === undefined) throw new RangeError(`cannot accept hash algorithm ${name}`)
  return hash
}
