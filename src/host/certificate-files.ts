import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** The file itself, or every `.pem` and `.crt` of a directory, in the order of their names. */
export async function certificateFiles(path: string): Promise<readonly string[]> {
  if (!(await stat(path)).isDirectory()) return [path]
  const names = (await readdir(path)).filter((name) => /\.(pem|crt)$/.test(name))
  return names.sort().map((name) => join(path, name))
}
