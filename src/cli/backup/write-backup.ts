import { createHash, type Hash } from 'node:crypto'
import { constants } from 'node:fs'
import { access, type FileHandle, open, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import type { BackupPart } from '#rpc/gen/assay/server/v1/backup.ts'
import { type BackupFile, type BackupManifest, manifestName, parseManifest } from './manifest.ts'
import { blockBytes, paddingBytes, tarHeader } from './tar.ts'

export interface WriteBackupOptions {
  readonly random: Random
  /** Replace a file of that name. */
  readonly force: boolean
  onProgress(pagesDone: number, pages: number): void
}

/**
 * Writes what a server sends as an archive of mode 0600 at `path`: whole, synced and checked against its checksums, or not
 * at all.
 *
 * @throws AssayError `already-exists` without `force`; `internal` when what came is not what the manifest says.
 */
export async function writeBackup(
  path: string,
  parts: AsyncIterable<BackupPart>,
  { random, force, onProgress }: WriteBackupOptions,
): Promise<BackupManifest> {
  if (!force) await requireNothing(path)
  const temporary = `${path}.${random.bytes(8).toHex()}.tmp`
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  const file = await openNew(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW)
  try {
    const archive = new ArchiveWriter(file)
    for await (const { part } of parts) {
      if (part?.$case === 'progress') onProgress(part.value.pagesDone, part.value.pages)
      if (part?.$case === 'manifest') await archive.begin(part.value)
      if (part?.$case === 'data') await archive.add(part.value)
    }
    const manifest = await archive.end()
    await file.chmod(0o600)
    await file.sync()
    await file.close()
    await rename(temporary, path)
    await using folder = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY)
    await folder.sync()
    return manifest
  } catch (error) {
    await file.close().catch(() => {
      // It was closed already.
    })
    await unlink(temporary).catch(() => {
      // It was renamed already.
    })
    throw error
  }
}

async function openNew(path: string, flags: number): Promise<FileHandle> {
  try {
    return await open(path, flags, 0o600)
  } catch (cause) {
    throw new AssayError('failed-precondition', `cannot write a backup: ${messageOf(cause)}`, {
      cause,
    })
  }
}

async function requireNothing(path: string): Promise<void> {
  try {
    await access(path)
  } catch {
    return
  }
  throw new AssayError('already-exists', `cannot write ${path}: it is there; --force replaces it`)
}

/** Puts files, one after the other, behind the manifest that names them. */
class ArchiveWriter {
  readonly #file: FileHandle
  #manifest: BackupManifest | undefined
  #waiting: BackupFile[] = []
  #current: { readonly file: BackupFile; readonly hash: Hash; missing: number } | undefined

  constructor(file: FileHandle) {
    this.#file = file
  }

  async begin(text: string): Promise<void> {
    if (this.#manifest !== undefined) throw wrong('a second manifest')
    this.#manifest = parseManifest(text)
    this.#waiting = [...this.#manifest.files]
    const bytes = utf8Bytes(text)
    await this.#header(manifestName, bytes.length)
    await this.#file.write(bytes)
    await this.#pad(bytes.length)
  }

  async add(bytes: Uint8Array): Promise<void> {
    this.#current ??= await this.#next()
    const { current } = { current: this.#current }
    if (current === undefined || bytes.length > current.missing) throw wrong('more than it named')
    current.hash.update(bytes)
    current.missing -= bytes.length
    await this.#file.write(bytes)
    if (current.missing > 0) return
    if (current.hash.digest('hex') !== current.file.sha256) {
      throw wrong(`a ${current.file.name} that does not have the checksum it named`)
    }
    await this.#pad(current.file.bytes)
    this.#current = undefined
  }

  async end(): Promise<BackupManifest> {
    const manifest = this.#manifest
    if (manifest === undefined || this.#current !== undefined || this.#waiting.length > 0) {
      throw wrong('less than it named')
    }
    await this.#file.write(new Uint8Array(2 * blockBytes))
    return manifest
  }

  async #next() {
    const file = this.#waiting.shift()
    if (file === undefined) return undefined
    await this.#header(file.name, file.bytes)
    return { file, hash: createHash('sha256'), missing: file.bytes }
  }

  async #header(name: string, bytes: number): Promise<void> {
    const mtimeSeconds = Math.floor((this.#manifest?.createdAt.epochMilliseconds ?? 0) / 1000)
    await this.#file.write(tarHeader({ name, bytes }, { mtimeSeconds }))
  }

  async #pad(bytes: number): Promise<void> {
    await this.#file.write(new Uint8Array(paddingBytes(bytes)))
  }
}

const wrong = (what: string): AssayError =>
  new AssayError('internal', `cannot write a backup: the server sent ${what}`)
