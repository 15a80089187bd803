import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { type Random, randomUuid } from '#base/random.ts'
import { writeSecretFile } from '#host/secret-file.ts'

/** Which journal of authorities is this server's; it stays the same as long as data_dir does. */
export async function loadServerName(dataDirectory: string, random: Random): Promise<string> {
  const path = join(dataDirectory, 'server-id')
  try {
    await mkdir(dataDirectory, { recursive: true, mode: 0o700 })
    const name = (await readFile(path, 'utf8')).trim()
    if (/^[0-9a-f-]{36}$/.test(name)) return name
    throw new AssayError(
      'failed-precondition',
      `cannot read ${path}: it holds no server id; restore it, or remove it to begin with new authorities`,
    )
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw notUsable(dataDirectory, error)
  }
  const name = randomUuid(random)
  try {
    await writeSecretFile(path, utf8Bytes(`${name}\n`), { random })
  } catch (error) {
    throw notUsable(dataDirectory, error)
  }
  return name
}

function notUsable(dataDirectory: string, cause: unknown): unknown {
  if (cause instanceof AssayError) return cause
  return new AssayError(
    'failed-precondition',
    `cannot use data_dir ${dataDirectory}: ${messageOf(cause)}`,
    { cause },
  )
}
