import { createHash } from 'node:crypto'
import { type BigIntStats, readlinkSync } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'

/** What is known of the program a process runs. */
export interface Executable {
  /**
   * Its absolute path, when that path names this very file for the agent too; undefined for a file that was
   * deleted or replaced, that lives in memory, or that lies in another mount namespace.
   */
  readonly path: string | undefined
  /** Lower-case hex of SHA-256 over the file; undefined when hashing is off or the file is larger than allowed. */
  readonly sha256: string | undefined
}

const chunkBytes = 256 * 1024
const maxRemembered = 1024

/** How long a path that was found to name a file is taken to name it still. */
const pathHoldsMs = 60_000

/**
 * Looks at the programs that processes run. A file is opened once, through /proc/PID/exe, and everything is learnt
 * from that one handle, so that nothing can be swapped between a look and the next. What was learnt is used again for
 * the same file with the same content. Nothing here blocks the event loop: a file may lie on a server that hangs.
 */
export class Executables {
  readonly #maxBytes: number
  readonly #trustForeignPaths: boolean
  readonly #clock: Clock
  /** Digests by what identifies a file's content, least recently used first. */
  readonly #digests = new Map<string, Promise<string>>()
  /** When, Unix time, a file and a path were found to belong together; the key names both. */
  readonly #paths = new Map<string, number>()
  /** The end of each user's queue: one user hashes one file at a time. */
  readonly #queues = new Map<number, Promise<unknown>>()

  constructor(options: {
    /** Files larger than this are not hashed. Zero: none is. */
    readonly maxBytes: number
    /** Report paths as other mount namespaces see them, which whoever made the namespace can choose. */
    readonly trustForeignPaths: boolean
    readonly clock: Clock
  }) {
    this.#maxBytes = options.maxBytes
    this.#trustForeignPaths = options.trustForeignPaths
    this.#clock = options.clock
  }

  /**
   * The program `process` runs.
   *
   * @throws AssayError `permission-denied` when the process replaced its program meanwhile.
   * @throws Error of the system when the agent may not look.
   */
  async inspect(
    process: { readonly pid: number; readonly uid: number },
    signal: AbortSignal,
  ): Promise<Executable> {
    const link = `/proc/${process.pid}/exe`
    const stats = await stat(link, { bigint: true })
    return (await this.#known(link, stats)) ?? (await this.#look(link, process, signal))
  }

  /** What has been learnt of this very file before; undefined: not everything. */
  async #known(link: string, stats: BigIntStats): Promise<Executable | undefined> {
    const path = readlinkSync(link)
    const file = fingerprint(stats)
    const foundAtMs = this.#paths.get(`${file} ${path}`)
    if (foundAtMs === undefined || Math.abs(this.#nowMs() - foundAtMs) > pathHoldsMs)
      return undefined
    if (!this.#isHashed(stats)) return { path, sha256: undefined }
    const sha256 = await this.#remembered(file)
    return sha256 === undefined ? undefined : { path, sha256 }
  }

  async #look(
    link: string,
    process: { readonly pid: number; readonly uid: number },
    signal: AbortSignal,
  ): Promise<Executable> {
    const file = await open(link, 'r')
    try {
      const stats = await file.stat({ bigint: true })
      const path = await this.#pathOf(link, stats)
      const sha256 = this.#isHashed(stats)
        ? await this.#digestOf(file, stats, { uid: process.uid, signal })
        : undefined
      const after = await stat(link, { bigint: true })
      if (!isSameFile(stats, after)) {
        throw new AssayError(
          'permission-denied',
          `process ${process.pid} replaced its program while it was looked at`,
          { reason: 'workload-changed' },
        )
      }
      return { path, sha256 }
    } finally {
      await file.close()
    }
  }

  async #pathOf(link: string, stats: BigIntStats): Promise<string | undefined> {
    const path = readlinkSync(link)
    if (!path.startsWith('/') || path.endsWith(' (deleted)')) return undefined
    if (!this.#trustForeignPaths) {
      const here = await stat(path, { bigint: true }).catch(() => undefined)
      if (here === undefined || !isSameFile(stats, here)) return undefined
    }
    this.#paths.set(`${fingerprint(stats)} ${path}`, this.#nowMs())
    forgetOldest(this.#paths)
    return path
  }

  #isHashed(stats: BigIntStats): boolean {
    return stats.isFile() && stats.size <= BigInt(this.#maxBytes)
  }

  async #digestOf(
    file: FileHandle,
    stats: BigIntStats,
    { uid, signal }: { readonly uid: number; readonly signal: AbortSignal },
  ): Promise<string> {
    const key = fingerprint(stats)
    const known = await this.#remembered(key)
    if (known !== undefined) return known
    const digest = this.#inTurn(uid, () => hashFile(file, Number(stats.size), signal))
    this.#digests.set(key, digest)
    forgetOldest(this.#digests)
    try {
      const value = await digest
      const after = await file.stat({ bigint: true })
      if (fingerprint(after) !== key) this.#digests.delete(key)
      return value
    } catch (error) {
      this.#digests.delete(key)
      throw error
    }
  }

  async #remembered(key: string): Promise<string | undefined> {
    const known = this.#digests.get(key)
    if (known === undefined) return undefined
    this.#digests.delete(key)
    this.#digests.set(key, known)
    try {
      return await known
    } catch {
      // Whoever began it went away; the file in our own hand is still open.
      return undefined
    }
  }

  #nowMs(): number {
    return this.#clock.now().epochMilliseconds
  }

  async #inTurn<T>(uid: number, work: () => Promise<T>): Promise<T> {
    const before = this.#queues.get(uid) ?? Promise.resolve()
    const turn = before.then(work, work)
    this.#queues.set(uid, turn)
    try {
      return await turn
    } finally {
      if (this.#queues.get(uid) === turn) this.#queues.delete(uid)
    }
  }
}

/** Names a file and its content: whoever changes one changes this, unless they may set the clock. */
function fingerprint(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`
}

function forgetOldest(map: Map<string, unknown>): void {
  for (const oldest of map.keys()) {
    if (map.size <= maxRemembered) return
    map.delete(oldest)
  }
}

/** @throws the signal's reason when it aborts, between two chunks. */
async function hashFile(file: FileHandle, size: number, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  const chunk = new Uint8Array(Math.min(chunkBytes, Math.max(size, 1)))
  let at = 0
  while (at < size) {
    signal.throwIfAborted()
    const { bytesRead } = await file.read(chunk, 0, chunk.length, at)
    if (bytesRead === 0) break
    hash.update(chunk.subarray(0, bytesRead))
    at += bytesRead
  }
  return hash.digest('hex')
}

function isSameFile(a: BigIntStats, b: BigIntStats): boolean {
  return a.dev === b.dev && a.ino === b.ino
}
