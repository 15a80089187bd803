import { execFile } from 'node:child_process'
import { type BigIntStats, readFileSync, statSync } from 'node:fs'
import { promisify } from 'node:util'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'

const run = promisify(execFile)

/** How long a name that is not in the file is remembered, found or not. */
const rememberedFor = Temporal.Duration.from({ minutes: 5 })
/** A file is looked at no more often than this. */
const lookAgainMs = 1_000
/** A file larger than this is not read. */
const maxFileBytes = 64 * 2 ** 20
const maxRemembered = 10_000

interface Remembered {
  readonly name: string | undefined
  readonly untilMs: number
}

/**
 * Names of users or groups by number: from a local file that is read anew when it changes, and for numbers that are
 * not in it (LDAP, SSSD) from `getent`, which asks what the host is configured to ask.
 */
export class NameTable {
  readonly #database: 'passwd' | 'group'
  readonly #file: string
  readonly #clock: Clock
  readonly #log: Log
  #version = ''
  #lookedAtMs = Number.NEGATIVE_INFINITY
  #names: ReadonlyMap<number, string> = new Map()
  readonly #elsewhere = new Map<number, Remembered>()
  readonly #elsewhereByName = new Map<
    string,
    { readonly id: number | undefined; readonly untilMs: number }
  >()
  readonly #underway = new Map<number, Promise<string | undefined>>()

  constructor(options: {
    readonly database: 'passwd' | 'group'
    /** `/etc/passwd` or `/etc/group`. */
    readonly file: string
    readonly clock: Clock
    readonly log: Log
  }) {
    this.#database = options.database
    this.#file = options.file
    this.#clock = options.clock
    this.#log = options.log
  }

  /** Looks whether the file has changed. To be called before {@link nameOf}, once for many names. */
  refresh(): void {
    const nowMs = this.#nowMs()
    if (nowMs >= this.#lookedAtMs && nowMs < this.#lookedAtMs + lookAgainMs) return
    this.#lookedAtMs = nowMs
    const stats = statSync(this.#file, { bigint: true, throwIfNoEntry: false })
    const version = stats === undefined ? 'absent' : versionOf(stats)
    if (version === this.#version) return
    this.#version = version
    this.#elsewhere.clear()
    this.#elsewhereByName.clear()
    const readable = stats !== undefined && stats.size <= BigInt(maxFileBytes)
    this.#names = readable ? parseNames(readFileSync(this.#file, 'utf8')) : new Map()
  }

  /** The name of `id`: at once when it is known, undefined when it has none. */
  nameOf(id: number): string | undefined | Promise<string | undefined> {
    const local = this.#names.get(id)
    if (local !== undefined) return local
    const remembered = this.#elsewhere.get(id)
    if (remembered !== undefined && remembered.untilMs > this.#nowMs()) return remembered.name
    const underway = this.#underway.get(id) ?? this.#ask(id)
    this.#underway.set(id, underway)
    return underway
  }

  /** The number of `name`; undefined when nobody on this host knows it. */
  async idOf(name: string): Promise<number | undefined> {
    this.refresh()
    for (const [id, held] of this.#names) if (held === name) return id
    // A number would be looked up as such, and an option be obeyed.
    if (!/^[A-Za-z_][\w.@\\$-]{0,255}$/.test(name)) return undefined
    const remembered = this.#elsewhereByName.get(name)
    if (remembered !== undefined && remembered.untilMs > this.#nowMs()) return remembered.id
    const [found] = (await this.#getent(name)) ?? []
    const id = found?.[1] === name ? found[0] : undefined
    if (this.#elsewhereByName.size >= maxRemembered) this.#elsewhereByName.clear()
    this.#elsewhereByName.set(name, { id, untilMs: this.#untilMs() })
    return id
  }

  async #ask(id: number): Promise<string | undefined> {
    try {
      const name = (await this.#getent(String(id)))?.get(id)
      if (this.#elsewhere.size >= maxRemembered) this.#elsewhere.clear()
      this.#elsewhere.set(id, { name, untilMs: this.#untilMs() })
      return name
    } finally {
      this.#underway.delete(id)
    }
  }

  /** Undefined: nobody knows `key`, or the question could not be asked. */
  async #getent(key: string): Promise<ReadonlyMap<number, string> | undefined> {
    try {
      const { stdout } = await run('getent', [this.#database, key], { timeout: 5_000 })
      return parseNames(stdout)
    } catch (error) {
      // Status 2 says that nobody knows it, which is an answer.
      if (!isNotFound(error)) {
        this.#log.debug({ error, key }, `cannot ask getent for a ${this.#database} entry`)
      }
      return undefined
    }
  }

  #untilMs(): number {
    return this.#nowMs() + rememberedFor.total('milliseconds')
  }

  #nowMs(): number {
    return this.#clock.now().epochMilliseconds
  }
}

/** Lines of `name:password:number:…`, the form of passwd(5) and group(5). Of two names the first counts. */
export function parseNames(text: string): ReadonlyMap<number, string> {
  const names = new Map<number, string>()
  for (const line of text.split('\n')) {
    const [name = '', , id = ''] = line.split(':')
    if (name === '' || name.startsWith('#') || !/^\d{1,10}$/.test(id)) continue
    const number = Number(id)
    if (!names.has(number)) names.set(number, name)
  }
  return names
}

function versionOf(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`
}

function isNotFound(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 2
}
