import { constants } from 'node:fs'
import {
  chmod,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  unlink,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { equalBytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { linkName } from './config.ts'

/** A file of a version. */
export interface VersionFile {
  readonly name: string
  readonly content: Uint8Array
  /** Permissions, whatever the umask. */
  readonly mode: number
}

/** Whom the files are given to; undefined leaves what the process has. */
export interface Ownership {
  readonly uid: number | undefined
  readonly gid: number | undefined
}

export interface VersionedDirectoryOptions {
  readonly layout: 'versions' | 'plain'
  readonly ownership: Ownership
  readonly random: Random
}

/** The sticky bit, inode(7). */
const stickyMode = 0o1000

/** Holds every version there is, the present one among them. */
const versionsName = '.versions'

/**
 * A directory whose files belong together and change together:
 *
 * ```
 * .versions/3f9a…/svid.pem       one directory for each version; nothing in it ever changes
 * current  -> .versions/3f9a…    the present version
 * svid.pem -> current/svid.pem   the names that programs are configured with
 * ```
 *
 * A version is written and synced whole, and then `current` is exchanged by one rename(2), which exchanges every name.
 * Who reads several files resolves `current` once (`realpath`, or openat(2) below it) and reads what leads from there:
 * they are of one version, and stay there until the version after the next comes. With the layout `plain` the names are
 * files themselves, all written beside their places first and then renamed one after another, in the order given.
 */
export class VersionedDirectory {
  readonly #directory: string
  readonly #options: VersionedDirectoryOptions

  private constructor(directory: string, options: VersionedDirectoryOptions) {
    this.#directory = directory
    this.#options = options
  }

  /**
   * Makes the directory when it is not there (mode 0755), and removes what an earlier process left half done.
   *
   * @throws AssayError `failed-precondition` when somebody else could put files or links there.
   */
  static async open(
    directory: string,
    options: VersionedDirectoryOptions,
  ): Promise<VersionedDirectory> {
    await makeDirectory(directory)
    await requireOwn(directory)
    const opened = new VersionedDirectory(directory, options)
    await opened.#removeTemporary()
    return opened
  }

  /**
   * Makes these the files that are there, all of them or, when it throws, none.
   *
   * @returns false when they were there already, and nothing was written.
   */
  async replace(files: readonly VersionFile[]): Promise<boolean> {
    if (await this.#holds(files)) return false
    if (this.#options.layout === 'plain') await this.#replacePlain(files)
    else await this.#replaceVersion(files)
    return true
  }

  async #holds(files: readonly VersionFile[]): Promise<boolean> {
    const { layout } = this.#options
    for (const file of files) {
      try {
        const path = join(this.#directory, file.name)
        const link = await lstat(path)
        if (link.isSymbolicLink() !== (layout === 'versions')) return false
        const { mode, uid, gid } = await stat(path)
        const { ownership } = this.#options
        if ((mode & 0o777) !== file.mode) return false
        if (ownership.uid !== undefined && ownership.uid !== uid) return false
        if (ownership.gid !== undefined && ownership.gid !== gid) return false
        if (!equalBytes(await readFile(path), file.content)) return false
      } catch {
        // Whatever is in its way, writing it anew will say.
        return false
      }
    }
    if (layout === 'plain') return true
    return (await readdir(join(this.#directory, linkName))).length === files.length
  }

  async #replaceVersion(files: readonly VersionFile[]): Promise<void> {
    const versions = join(this.#directory, versionsName)
    await makeDirectory(versions)
    if ((await lstat(versions)).isSymbolicLink()) {
      throw new AssayError(
        'failed-precondition',
        `cannot write files into ${versions}: it is a link; remove it`,
        { reason: 'directory-not-own' },
      )
    }
    await requireOwn(versions)
    const before = await this.#presentVersion()
    const version = this.#options.random.bytes(8).toHex()
    const path = join(versions, version)
    await mkdir(path)
    try {
      await chmod(path, 0o755)
      for (const file of files) await this.#write(join(path, file.name), file)
      await syncDirectory(path)
      await syncDirectory(versions)
      await this.#link(linkName, join(versionsName, version))
    } catch (error) {
      await rm(path, { recursive: true, force: true })
      throw error
    }
    for (const { name } of files) await this.#linkName(name)
    await syncDirectory(this.#directory)
    await this.#removeNames(files)
    // A reader may be between two files of the version that was there until now.
    await this.#removeVersions([version, ...(before === undefined ? [] : [before])])
  }

  async #replacePlain(files: readonly VersionFile[]): Promise<void> {
    const written: (readonly [temporary: string, path: string])[] = []
    try {
      for (const file of files) {
        const temporary = this.#temporary(file.name)
        written.push([temporary, join(this.#directory, file.name)])
        await this.#write(temporary, file)
      }
      for (const [temporary, path] of written) await rename(temporary, path)
    } catch (error) {
      for (const [temporary] of written) await rm(temporary, { force: true })
      throw error
    }
    await syncDirectory(this.#directory)
  }

  /** What is secret is never open to more than it will be, not even while it is empty. */
  async #write(path: string, { content, mode }: VersionFile): Promise<void> {
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
    const { uid, gid } = this.#options.ownership
    await using file = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    if (uid !== undefined || gid !== undefined) await giveTo(file, path, { uid, gid })
    await file.chmod(mode)
    await file.writeFile(content)
    await file.sync()
  }

  /** The name of the version that `current` leads to. */
  async #presentVersion(): Promise<string | undefined> {
    try {
      const target = await readlink(join(this.#directory, linkName))
      return target.startsWith(`${versionsName}/`) ? target.slice(versionsName.length + 1) : ''
    } catch {
      // There is none yet.
      return undefined
    }
  }

  async #linkName(name: string): Promise<void> {
    const target = join(linkName, name)
    try {
      if ((await readlink(join(this.#directory, name))) === target) return
    } catch {
      // It is not there, or it is a file from another layout, which the link replaces.
    }
    await this.#link(name, target)
  }

  async #link(name: string, target: string): Promise<void> {
    const temporary = this.#temporary(name)
    await symlink(target, temporary)
    try {
      await rename(temporary, join(this.#directory, name))
    } catch (error) {
      await unlink(temporary)
      throw error
    }
  }

  /** Links to files that the present version has no more. */
  async #removeNames(files: readonly VersionFile[]): Promise<void> {
    const names = new Set(files.map(({ name }) => name))
    for (const entry of await readdir(this.#directory, { withFileTypes: true })) {
      if (!entry.isSymbolicLink() || names.has(entry.name) || entry.name === linkName) continue
      const path = join(this.#directory, entry.name)
      if ((await readlink(path)) === join(linkName, entry.name)) await unlink(path)
    }
  }

  async #removeVersions(kept: readonly string[]): Promise<void> {
    const versions = join(this.#directory, versionsName)
    for (const name of await readdir(versions)) {
      if (!kept.includes(name)) await rm(join(versions, name), { recursive: true, force: true })
    }
  }

  async #removeTemporary(): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      if (/^\..+\.[0-9a-f]{16}\.tmp$/.test(name)) await unlink(join(this.#directory, name))
    }
  }

  #temporary(name: string): string {
    return join(this.#directory, `.${name}.${this.#options.random.bytes(8).toHex()}.tmp`)
  }
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    const made = await mkdir(directory, { recursive: true, mode: 0o755 })
    // A umask takes bits away.
    if (made !== undefined) await chmod(directory, 0o755)
  } catch (cause) {
    throw new AssayError(
      'failed-precondition',
      `cannot make the directory ${directory}: ${messageOf(cause)}`,
      { cause },
    )
  }
}

/**
 * Who could put a link there, or in the place of a directory on the way there, would have files written wherever the
 * link leads.
 */
async function requireOwn(directory: string): Promise<void> {
  const refuse = (why: string): never => {
    throw new AssayError('failed-precondition', `cannot write files into ${directory}: ${why}`, {
      reason: 'directory-not-own',
    })
  }
  const self = process.geteuid?.()
  // Where it is, and where it was said to be: a link on that way is as good as its directory.
  const places = [directory, await realpath(directory)]
  for (const one of new Set(places.flatMap((place) => [place, ...above(place)]))) {
    const { uid, mode } = await stat(one)
    const isItself = places.includes(one)
    const it = isItself ? 'it' : one
    if (uid !== self && uid !== 0) {
      const remedy = isItself ? `, or chown ${self} ${one}` : ''
      refuse(`${it} belongs to user ${uid}: run the helper as that user${remedy}`)
    }
    // In a directory like /tmp nobody can put anything in the place of what is another's.
    const isSticky = !isItself && (mode & stickyMode) !== 0
    if ((mode & 0o022) !== 0 && !isSticky) {
      const octal = (mode & 0o777).toString(8).padStart(4, '0')
      refuse(`the mode ${octal} of ${one} lets others write there: chmod go-w ${one}`)
    }
  }
}

/** The directories that a path leads through, the root last. */
function above(path: string): string[] {
  const parent = dirname(path)
  return parent === path ? [] : [parent, ...above(parent)]
}

async function giveTo(file: FileHandle, path: string, { uid, gid }: Ownership): Promise<void> {
  // -1 leaves it as it is, chown(2).
  const nobody = 2 ** 32 - 1
  try {
    await file.chown(uid ?? nobody, gid ?? nobody)
  } catch (cause) {
    throw new AssayError(
      'failed-precondition',
      `cannot give ${path} to user ${uid ?? 'unchanged'}, group ${gid ?? 'unchanged'}: ${messageOf(cause)}; only root may`,
      { cause },
    )
  }
}

/** Makes renames in a directory last (fsync(2) on it). */
async function syncDirectory(directory: string): Promise<void> {
  await using handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  await handle.sync()
}
