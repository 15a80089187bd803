import { constants } from 'node:fs'
import { type FileHandle, open, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { AssayError } from '#base/errors.ts'
import type { Random } from '#base/random.ts'

/** Largest secret file that is read, in bytes. */
const maxBytes = 1024 * 1024

/**
 * Reads a file that nobody but its owner may read or write, and whose owner is us or root. Links are followed
 * in the folders of the path but not at its end.
 *
 * @throws AssayError `failed-precondition` when it is open to others, with the command that closes it;
 *   `not-found` when it is not there.
 */
export async function readSecretFile(path: string): Promise<Uint8Array> {
  const file = await openOrExplain(path)
  try {
    const { mode, uid, size } = await file.stat()
    const self = process.geteuid?.()
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw refused(path, 'it is not a file')
    if (uid !== self && uid !== 0) {
      throw refused(path, `it belongs to user ${uid}: chown it to ${self}`)
    }
    if ((mode & 0o077) !== 0) {
      const octal = (mode & 0o777).toString(8).padStart(4, '0')
      throw refused(path, `its mode ${octal} lets others at it: chmod 0600 ${path}`)
    }
    if (size > maxBytes) throw refused(path, `it is larger than ${maxBytes} bytes`)
    const bytes = new Uint8Array(maxBytes + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length)
      if (bytesRead === 0) return bytes.slice(0, length)
      length += bytesRead
      if (length > maxBytes) throw refused(path, `it is larger than ${maxBytes} bytes`)
    }
  } finally {
    await file.close()
  }
}

async function openOrExplain(path: string): Promise<FileHandle> {
  try {
    // Not blocking: a FIFO of that name must not hang the caller.
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    throw openFailed(path, cause as NodeJS.ErrnoException)
  }
}

function openFailed(path: string, cause: NodeJS.ErrnoException): AssayError {
  if (cause.code === 'ENOENT') {
    return new AssayError('not-found', `cannot read ${path}: there is no such file`, { cause })
  }
  return refused(path, cause.code === 'ELOOP' ? 'it is a symbolic link' : cause.message, cause)
}

function refused(path: string, why: string, cause?: unknown): AssayError {
  return new AssayError('failed-precondition', `cannot read the secret file ${path}: ${why}`, {
    reason: 'secret-file-not-private',
    cause,
  })
}

/**
 * Replaces a file by `content`, all or nothing even if the machine loses power: written beside it, synced,
 * renamed, and the folder synced. The new file has its mode, 0600 when absent, whatever the umask, and before it has
 * its name: in a folder of somebody else's the name may lead elsewhere at once.
 */
export async function writeSecretFile(
  path: string,
  content: Uint8Array,
  { random, mode = 0o600 }: { readonly random: Random; readonly mode?: number },
): Promise<void> {
  const temporary = `${path}.${random.bytes(8).toHex()}.tmp`
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  try {
    await using file = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    // A umask takes bits away from the mode of open(2).
    await file.chmod(mode)
    await file.writeFile(content)
    await file.sync()
    await rename(temporary, path)
  } catch (error) {
    await unlink(temporary).catch(() => {
      // It may never have been there.
    })
    throw error
  }
  await syncFolder(dirname(path))
}

/** Makes a rename in `folder` last (fsync(2) on the folder). */
async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  await handle.sync()
}
