import { readFile } from 'node:fs/promises'
import { AssayError, messageOf } from '#base/errors.ts'
import { certificateFiles } from '#host/certificate-files.ts'
import { parsePem } from '#pki/pem.ts'
import { parseEndorsementAuthorities } from '#tpm/verify/endorsement-authorities.ts'

/**
 * The certificates of TPM makers that `node_attestors.tpm` names, DER; each can be read.
 *
 * @throws AssayError `failed-precondition` that names the file, or that there is none although
 * `allow: endorsement_ca` needs one.
 */
export async function loadEndorsementAuthorities(settings: {
  readonly allow: 'inventory' | 'endorsement_ca'
  readonly endorsement_ca: string | undefined
}): Promise<readonly Uint8Array[]> {
  const { allow, endorsement_ca: path } = settings
  if (path !== undefined) return await loadCertificates(path)
  if (allow === 'inventory') return []
  throw new AssayError(
    'failed-precondition',
    'cannot admit TPMs by their maker: set node_attestors.tpm.endorsement_ca, or allow: inventory',
  )
}

/**
 * The certificates of a PEM file, or of every `.pem` and `.crt` in a directory; DER.
 *
 * @throws AssayError `failed-precondition` that names the file.
 */
async function loadCertificates(path: string): Promise<Uint8Array[]> {
  try {
    const loaded: Uint8Array[] = []
    for (const file of await certificateFiles(path))
      loaded.push(...(await loadCertificateFile(file)))
    parseEndorsementAuthorities(loaded)
    if (loaded.length === 0) throw new SyntaxError('it holds no certificate (.pem or .crt)')
    return loaded
  } catch (cause) {
    throw new AssayError(
      'failed-precondition',
      `cannot load node_attestors.tpm.endorsement_ca ${path}: ${messageOf(cause)}`,
      { cause },
    )
  }
}

async function loadCertificateFile(file: string): Promise<Uint8Array[]> {
  try {
    return parsePem(await readFile(file), 'CERTIFICATE')
  } catch (cause) {
    throw new SyntaxError(`${file}: ${messageOf(cause)}`, { cause })
  }
}
