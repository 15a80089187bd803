import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { equalBytes, utf8Text } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import { readSecretFile } from '#host/secret-file.ts'
import { describePublicKey, newPublicKeyObject } from '#pki/public-key.ts'
import type { CeremonyFile } from './ceremony-file.ts'
import { load, parsePublicKey } from './inputs.ts'

/** Public keys (SubjectPublicKeyInfo, DER) by operator. */
export type Operators = ReadonlyMap<string, Uint8Array>

/** The public keys of the operators that a ceremony's file names. @throws AssayError that names the file. */
export async function loadOperators({ operators }: CeremonyFile): Promise<Operators> {
  const found = new Map<string, Uint8Array>()
  for (const [name, path] of operators.public_keys) {
    const publicKey = await load(path, parsePublicKey)
    hashOf(publicKey)
    for (const [other, key] of found) {
      if (equalBytes(key, publicKey)) {
        throw refuse(`${name} and ${other} have one and the same key: a person signs once`)
      }
    }
    found.set(name, publicKey)
  }
  return found
}

/**
 * The private keys (PEM without a passphrase, readable by their owner alone) of operators that take part, by name.
 *
 * @throws AssayError `failed-precondition`, reason `ceremony-operators`, when a key is nobody's, or too few take part:
 * it names who could.
 */
export async function loadOperatorKeys(
  paths: readonly string[],
  of: { readonly operators: Operators; readonly required: number },
): Promise<ReadonlyMap<string, KeyObject>> {
  const { operators, required } = of
  const keys = new Map<string, KeyObject>()
  for (const path of paths) {
    const key = await loadPrivateKey(path)
    const publicKey = new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' }))
    const [name] = [...operators].find(([, known]) => equalBytes(known, publicKey)) ?? []
    if (name === undefined) throw refuse(`the key in ${path} is of no operator that the file names`)
    keys.set(name, key)
  }
  if (keys.size < required) {
    const missing = [...operators.keys()].filter((name) => !keys.has(name))
    throw refuse(
      `${required} operators must sign and ${keys.size} ${keys.size === 1 ? 'does' : 'do'}: give --operator-key FILE also for ${missing.join(' or ')}`,
    )
  }
  return keys
}

/** An operator's signature over the bytes of a transcript: Ed25519, or ECDSA in DER with the hash of its curve. */
export function signTranscript(key: KeyObject, transcript: Uint8Array): Uint8Array {
  const publicKey = new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' }))
  return new Uint8Array(sign(hashOf(publicKey), transcript, key))
}

/** Whether the holder of `publicKey` (SubjectPublicKeyInfo, DER) signed these very bytes. */
export function hasSigned(
  publicKey: Uint8Array,
  signed: { readonly transcript: Uint8Array; readonly signature: Uint8Array },
): boolean {
  const key = newPublicKeyObject(publicKey)
  return verify(hashOf(publicKey), signed.transcript, key, signed.signature)
}

async function loadPrivateKey(path: string): Promise<KeyObject> {
  const pem = await readSecretFile(path)
  try {
    return createPrivateKey(utf8Text(pem))
  } catch {
    // OpenSSL's own error may quote what it met, which may be key material.
    throw refuse(`${path} is no private key in PEM without a passphrase`)
  } finally {
    pem.fill(0)
  }
}

/** @throws AssayError for a key that is neither Ed25519 nor on a curve of NIST's. */
function hashOf(publicKey: Uint8Array): 'sha256' | 'sha384' | 'sha512' | undefined {
  const key = describePublicKey(publicKey)
  if (key.type === 'ed25519') return undefined
  if (key.type === 'ec')
    return ({ 'P-256': 'sha256', 'P-384': 'sha384', 'P-521': 'sha512' } as const)[key.curve]
  throw refuse(`an operator’s key is Ed25519 or ECDSA, not ${key.type}`)
}

const refuse = (why: string): AssayError =>
  new AssayError('failed-precondition', `cannot hold the ceremony: ${why}`, {
    reason: 'ceremony-operators',
  })
