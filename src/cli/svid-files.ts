import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { writeSecretFile } from '#host/secret-file.ts'
import { encodePem } from '#pki/pem.ts'

/** A file to write; one that is not secret may be read by everybody. */
export interface SvidFile {
  readonly name: string
  readonly content: string
  readonly secret?: boolean
}

/** Certificates of DER as PEM blocks. */
export const certificatesPem = (ders: readonly Uint8Array[]): string =>
  ders.map((der) => encodePem('CERTIFICATE', der)).join('')

/**
 * Writes files into `directory`, which is made with mode 0700 when it is not there. Each replaces what stood
 * there all or nothing, and has mode 0600 if it is secret, else 0644, whatever the umask and whatever was there.
 *
 * @returns the paths, in the order of `files`.
 */
export async function writeSvidFiles(
  directory: string,
  files: readonly SvidFile[],
  options: { readonly random: Random },
): Promise<readonly string[]> {
  await makeDirectory(directory)
  const paths: string[] = []
  for (const { name, content, secret } of files) {
    const path = join(directory, name)
    const mode = secret === true ? 0o600 : 0o644
    await writeSecretFile(path, utf8Bytes(content), { ...options, mode })
    paths.push(path)
  }
  return paths
}

const whyNot: Readonly<Record<string, string>> = {
  EACCES: 'this user may not write there',
  EPERM: 'this user may not write there',
  EROFS: 'the file system is read-only',
  ENOTDIR: 'a part of the path is a file',
  EEXIST: 'there is a file of that name',
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
  } catch (cause) {
    const why = whyNot[(cause as NodeJS.ErrnoException).code ?? ''] ?? messageOf(cause)
    throw new AssayError('failed-precondition', `cannot make the directory ${directory}: ${why}`, {
      cause,
    })
  }
}
