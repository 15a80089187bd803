import { generateKeyPair as generate, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { concatBytes, parseBase64Url } from '#base/bytes.ts'
import { bitString, contextConstructed, integer, octetString, oid, sequence } from './der.ts'
import { curves, ecPublicKeyInfo } from './public-key.ts'

/** Keys that Assay makes, by SPIRE's names of `ca_key_type`. */
export type KeyType = EcKeyType | 'rsa-2048' | 'rsa-3072' | 'rsa-4096'
export type EcKeyType = 'ec-p256' | 'ec-p384'

export interface KeyPair {
  readonly privateKey: KeyObject
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
}

const ecCurves = { 'ec-p256': 'P-256', 'ec-p384': 'P-384' } as const
const rsaBits = { 'rsa-2048': 2048, 'rsa-3072': 3072, 'rsa-4096': 4096 } as const
const generateAsync = promisify(generate)

/** A fresh key pair. EC keys are made at once in some 30 µs; RSA keys take seconds, off the event loop. */
export async function generateKeyPair(type: KeyType): Promise<KeyPair> {
  if (type === 'ec-p256' || type === 'ec-p384') return generateEcKeyPair(type)
  const { privateKey, publicKey } = await generateAsync('rsa', { modulusLength: rsaBits[type] })
  return { privateKey, publicKey: view(publicKey.export({ format: 'der', type: 'spki' })) }
}

/** {@link generateKeyPair} for callers that make many: nothing is awaited. */
export function generateEcKeyPair(type: EcKeyType): KeyPair {
  const namedCurve = ecCurves[type]
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve })
  return { privateKey, publicKey: ecPublicKeyInfo(namedCurve, rawPoint(publicKey)) }
}

/**
 * `PrivateKeyInfo` (RFC 5208) of a private key, not encrypted, as the Workload API hands it out. P-256 goes
 * through JWK, which costs a third of OpenSSL's DER encoder and gives the same bytes.
 */
export function exportPkcs8(privateKey: KeyObject): Uint8Array {
  if (privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    return view(privateKey.export({ format: 'der', type: 'pkcs8' }))
  }
  const { d = '', x = '', y = '' } = privateKey.export({ format: 'jwk' })
  const point = concatBytes(uncompressed, parseBase64Url(x), parseBase64Url(y))
  // ECPrivateKey of RFC 5915 §3; the curve stands outside.
  const key = sequence(
    integer(1n),
    octetString(parseBase64Url(d)),
    contextConstructed(1, bitString(point)),
  )
  return sequence(integer(0n), p256Algorithm, octetString(key))
}

const uncompressed = Uint8Array.of(4)
const p256Algorithm = sequence(oid('1.2.840.10045.2.1'), oid(curves['P-256'].oid))

/** The uncompressed point of an EC public key. */
function rawPoint(publicKey: KeyObject): Uint8Array {
  return view(publicKey.export({ format: 'raw-public', type: 'uncompressed' }))
}

/** A Buffer as the plain array it also is. */
function view(buffer: Uint8Array): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length)
}
