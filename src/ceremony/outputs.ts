import { constants } from 'node:fs'
import { access, link, open, stat, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { AssayError, messageOf } from '#base/errors.ts'

/**
 * Makes sure that files can be written, and that none of them is there.
 *
 * @throws AssayError `already-exists` or `failed-precondition`, reason `ceremony-output`.
 */
export async function checkOutputs(paths: readonly string[]): Promise<void> {
  const seen = new Set<string>()
  for (const path of paths) {
    if (seen.has(path)) throw refuse('failed-precondition', path, 'two outputs have this path')
    seen.add(path)
    if (await exists(path)) throw refuse('already-exists', path, 'it is there already')
    try {
      await access(dirname(path), constants.W_OK | constants.X_OK)
    } catch (cause) {
      throw refuse('failed-precondition', path, messageOf(cause), cause)
    }
  }
}

/**
 * Writes all files, durably, or none: whoever finds one of them finds it whole. What is there is never replaced.
 *
 * @throws AssayError `unavailable`, reason `ceremony-output`.
 */
export async function writeOutputs(files: ReadonlyMap<string, Uint8Array>): Promise<void> {
  const temporary = (path: string): string => `${path}.new`
  /** What is there by our doing: what stood in the way stays. */
  const made = new Set<string>()
  try {
    for (const [path, content] of files) {
      await create(temporary(path), content, made)
    }
    for (const [path, content] of files) {
      try {
        await link(temporary(path), path)
        made.add(path)
      } catch (error) {
        // FAT, on a memory stick, has no links; a name that is taken is refused here too.
        if (!hasNoLinks(error)) throw error
        await create(path, content, made)
      }
      await unlink(temporary(path))
      made.delete(temporary(path))
    }
    for (const folder of new Set([...files.keys()].map((path) => dirname(path)))) {
      await using handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
      await handle.sync()
    }
  } catch (cause) {
    for (const path of made) {
      await unlink(path).catch(() => {
        // Whoever took it away has done it already.
      })
    }
    throw new AssayError('unavailable', `cannot write the outputs: ${messageOf(cause)}`, {
      reason: 'ceremony-output',
      cause,
    })
  }
}

async function create(path: string, content: Uint8Array, made: Set<string>): Promise<void> {
  await using file = await open(path, 'wx', 0o644)
  made.add(path)
  await file.writeFile(content)
  await file.sync()
}

const hasNoLinks = (error: unknown): boolean =>
  ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].includes(String((error as { code?: unknown }).code))

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

function refuse(
  code: 'already-exists' | 'failed-precondition',
  path: string,
  why: string,
  cause?: unknown,
): AssayError {
  return new AssayError(code, `cannot write ${path}: ${why}`, { reason: 'ceremony-output', cause })
}
