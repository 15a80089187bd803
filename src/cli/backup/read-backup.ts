import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { utf8Text } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import {
  type BackupFile,
  type BackupManifest,
  manifestName,
  maxManifestBytes,
  parseManifest,
} from './manifest.ts'
import { blockBytes, paddingBytes, parseTarHeader } from './tar.ts'

const partBytes = 1024 * 1024

/** A backup that is open: its manifest is read, its files are not yet. */
export class BackupReader implements AsyncDisposable {
  readonly manifest: BackupManifest
  readonly #path: string
  readonly #file: FileHandle
  #at: number

  private constructor(
    path: string,
    parts: { file: FileHandle; manifest: BackupManifest; at: number },
  ) {
    this.#path = path
    this.#file = parts.file
    this.manifest = parts.manifest
    this.#at = parts.at
  }

  /** @throws AssayError `invalid-argument` for what is no backup, or one of a newer form. */
  static async open(path: string): Promise<BackupReader> {
    let file: FileHandle
    try {
      file = await open(path)
    } catch (cause) {
      const isAbsent = (cause as NodeJS.ErrnoException).code === 'ENOENT'
      throw new AssayError(
        isAbsent ? 'not-found' : 'failed-precondition',
        `cannot read the backup ${path}: ${messageOf(cause)}`,
        { cause },
      )
    }
    try {
      const entry = parseTarHeader(await bytesAt(file, 0, blockBytes))
      if (entry?.name !== manifestName) throw new SyntaxError('it does not begin with a manifest')
      if (entry.bytes > maxManifestBytes) throw new SyntaxError('its manifest is too large')
      const manifest = parseManifest(utf8Text(await bytesAt(file, blockBytes, entry.bytes)))
      const at = blockBytes + entry.bytes + paddingBytes(entry.bytes)
      return new BackupReader(path, { file, manifest, at })
    } catch (cause) {
      await file.close()
      throw unusable(path, cause)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }

  /**
   * Copies the next file, which must be `expected`, into one that is open for writing.
   *
   * @throws AssayError `invalid-argument` when it is another, or does not have its checksum.
   */
  async copyNext(expected: BackupFile, into: FileHandle): Promise<void> {
    try {
      const entry = parseTarHeader(await bytesAt(this.#file, this.#at, blockBytes))
      if (entry?.name !== expected.name || entry.bytes !== expected.bytes) {
        throw new SyntaxError(`it does not hold ${expected.name} as its manifest says`)
      }
      const begin = this.#at + blockBytes
      const hash = createHash('sha256')
      for (let done = 0; done < entry.bytes; ) {
        const part = await bytesAt(
          this.#file,
          begin + done,
          Math.min(partBytes, entry.bytes - done),
        )
        hash.update(part)
        await into.write(part)
        done += part.length
      }
      if (hash.digest('hex') !== expected.sha256) {
        throw new SyntaxError(`${expected.name} is damaged: it does not have its checksum`)
      }
      this.#at = begin + entry.bytes + paddingBytes(entry.bytes)
    } catch (cause) {
      throw cause instanceof SyntaxError ? unusable(this.#path, cause) : cause
    }
  }
}

const unusable = (path: string, cause: unknown): AssayError =>
  new AssayError('invalid-argument', `cannot use the backup ${path}: ${messageOf(cause)}`, {
    reason: 'backup-unusable',
    cause,
  })

async function bytesAt(file: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, position + done)
    if (bytesRead === 0) throw new SyntaxError('the archive ends too early')
    done += bytesRead
  }
  return bytes
}
