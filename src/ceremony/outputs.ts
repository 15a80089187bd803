import { constants } from 'node:fs'
import { access, open, rename, stat, unlink } from 'node:fs/promises'
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

/** Writes all files, durably, or none: whoever finds one of them finds it whole. */
export async function writeOutputs(files: ReadonlyMap<string, Uint8Array>): Promise<void> {
  const temporary = (path: string): string => `${path}.new`
  /** What is there by our doing: what stood in the way stays. */
  const made = new Set<string>()
  try {
    for (const [path, content] of files) {
      await using file = await open(temporary(path), 'wx', 0o644)
      made.add(temporary(path))
      await file.writeFile(content)
      await file.sync()
    }
    for (const path of files.keys()) {
      await rename(temporary(path), path)
      made.delete(temporary(path))
      made.add(path)
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
