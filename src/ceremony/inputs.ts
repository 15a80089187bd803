import { readFile } from 'node:fs/promises'
import { AssayError, messageOf } from '#base/errors.ts'
import { type Certificate, parseCertificate } from '#pki/certificate.ts'
import { parseCsr, verifyCsr } from '#pki/csr.ts'
import { parsePem } from '#pki/pem.ts'
import { describePublicKey } from '#pki/public-key.ts'
import type { CeremonyFile } from './ceremony-file.ts'

/** What the files say that a ceremony's file names. */
export interface CeremonyInputs {
  /** Who signs an intermediate. */
  readonly issuer: Certificate | undefined
  /** SubjectPublicKeyInfo, DER; undefined when the key is made in the ceremony. */
  readonly publicKey: Uint8Array | undefined
}

/**
 * Reads what a ceremony starts from. No token is asked.
 *
 * @throws AssayError `failed-precondition`, reason `ceremony-input`, that names the file and what is wrong with it.
 */
export async function loadCeremonyInputs(ceremony: CeremonyFile): Promise<CeremonyInputs> {
  const { key, issuer } = ceremony
  return {
    issuer:
      issuer === undefined
        ? undefined
        : await load(issuer.certificate_file, (file) =>
            parseCertificate(single(file, 'CERTIFICATE')),
          ),
    publicKey: await loadPublicKey(key),
  }
}

async function loadPublicKey(key: CeremonyFile['key']): Promise<Uint8Array | undefined> {
  switch (key.kind) {
    case 'generate':
      return undefined
    case 'existing':
      return await load(key.public_key_file, parsePublicKey)
    case 'public_key':
      return await load(key.file, parsePublicKey)
    case 'csr':
      return await load(key.file, (pem) => {
        const csr = parseCsr(single(pem, 'CERTIFICATE REQUEST'))
        verifyCsr(csr)
        return csr.publicKey
      })
  }
}

/** The one SubjectPublicKeyInfo in `pem`, DER. @throws SyntaxError when there is none, or more. */
export function parsePublicKey(pem: Uint8Array): Uint8Array {
  const publicKey = single(pem, 'PUBLIC KEY')
  describePublicKey(publicKey)
  return publicKey
}

function single(pem: Uint8Array, label: string): Uint8Array {
  const [first, second] = parsePem(pem, label)
  if (first === undefined) throw new SyntaxError(`it holds no ${label} block`)
  if (second !== undefined) throw new SyntaxError(`it holds several ${label} blocks`)
  return first
}

/** What `parse` makes of a file. @throws AssayError that names the file. */
export async function load<T>(path: string, parse: (content: Uint8Array) => T): Promise<T> {
  try {
    return parse(await readFile(path))
  } catch (cause) {
    throw new AssayError('failed-precondition', `cannot use ${path}: ${messageOf(cause)}`, {
      reason: 'ceremony-input',
      cause,
    })
  }
}
