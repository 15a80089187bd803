import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

/** The first directory on the way to `path` that this user may not pass; undefined when there is none. */
export async function closedDirectory(path: string): Promise<string | undefined> {
  const way: string[] = []
  let directory = dirname(resolve(path))
  while (directory !== dirname(directory)) {
    way.unshift(directory)
    directory = dirname(directory)
  }
  for (const one of way) {
    try {
      await access(one, constants.X_OK)
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'EACCES' ? one : undefined
    }
  }
  return undefined
}
