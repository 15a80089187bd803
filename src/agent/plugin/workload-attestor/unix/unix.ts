import { closeSync, openSync, readSync } from 'node:fs'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { NameTable } from '#host/name-service.ts'
import { type Selector, selector } from '#spiffe/selector.ts'
import type { WorkloadAttestor, WorkloadProcess } from '../workload-attestor.ts'
import { Executables } from './executable.ts'

export interface UnixWorkloadAttestorOptions {
  /** Always look at the program: otherwise only while `usesProgram()` says that an entry asks for it. */
  readonly discoverWorkloadPath: boolean
  /** Bytes; a larger program is not hashed. Zero: none is. */
  readonly workloadSizeLimit: number
  /** Report paths as other mount namespaces see them. */
  readonly trustForeignPaths: boolean
  /** Whether an entry that the agent holds has a selector `unix:path:…` or `unix:sha256:…`. */
  readonly usesProgram: () => boolean
  readonly clock: Clock
  readonly log: Log
}

/** Programs may be replaced between two looks (exec); a process that keeps doing it is refused. */
const maxLooks = 3

/**
 * The facts the Unix kernel knows of a process: `uid`, `gid`, `user`, `group`, `supplementary_gid`,
 * `supplementary_group`, and of its program `path` and `sha256`.
 */
export class UnixWorkloadAttestor implements WorkloadAttestor {
  readonly type = 'unix'
  readonly #options: UnixWorkloadAttestorOptions
  readonly #users: NameTable
  readonly #groups: NameTable
  readonly #executables: Executables

  constructor(options: UnixWorkloadAttestorOptions) {
    const { clock, log } = options
    this.#options = options
    this.#users = new NameTable({ database: 'passwd', file: '/etc/passwd', clock, log })
    this.#groups = new NameTable({ database: 'group', file: '/etc/group', clock, log })
    this.#executables = new Executables({
      maxBytes: options.workloadSizeLimit,
      trustForeignPaths: options.trustForeignPaths,
      clock,
    })
  }

  async attest(process: WorkloadProcess, signal: AbortSignal): Promise<readonly Selector[]> {
    const status = readStatus(process)
    this.#users.refresh()
    this.#groups.refresh()
    const found = [fact('uid', process.uid), fact('gid', process.gid)]
    // Names are nearly always known already; an await for each would cost more than the look-up.
    const user = this.#users.nameOf(process.uid)
    const userName = typeof user === 'object' ? await user : user
    if (userName !== undefined) found.push(fact('user', userName))
    const group = this.#groups.nameOf(process.gid)
    const groupName = typeof group === 'object' ? await group : group
    if (groupName !== undefined) found.push(fact('group', groupName))
    for (const gid of status.groups) {
      found.push(fact('supplementary_gid', gid))
      const held = this.#groups.nameOf(gid)
      const name = typeof held === 'object' ? await held : held
      if (name !== undefined) found.push(fact('supplementary_group', name))
    }
    if (this.#options.discoverWorkloadPath || this.#options.usesProgram()) {
      found.push(...(await this.#programFacts(process, signal)))
    }
    return found
  }

  async attestUser(user: string): Promise<readonly Selector[]> {
    const uid = /^\d{1,10}$/.test(user) ? Number(user) : await this.#users.idOf(user)
    if (uid === undefined) {
      throw new AssayError('not-found', `there is no user ${JSON.stringify(user)} on this node`)
    }
    this.#users.refresh()
    const name = await this.#users.nameOf(uid)
    return [fact('uid', uid), ...(name === undefined ? [] : [fact('user', name)])]
  }

  async #programFacts(process: WorkloadProcess, signal: AbortSignal): Promise<Selector[]> {
    for (let look = 1; ; look += 1) {
      try {
        const { path, sha256 } = await this.#executables.inspect(process, signal)
        process.assertSame()
        const facts: Selector[] = []
        if (path !== undefined) facts.push(fact('path', path))
        if (sha256 !== undefined) facts.push(fact('sha256', sha256))
        return facts
      } catch (error) {
        signal.throwIfAborted()
        process.assertSame()
        if (error instanceof AssayError) {
          if (error.reason === 'workload-changed' && look < maxLooks) continue
          throw error
        }
        this.#options.log.debug(
          { pid: process.pid, error: messageOf(error) },
          'cannot look at the program of a process; the agent needs CAP_SYS_PTRACE for that',
        )
        return []
      }
    }
  }
}

interface ProcessStatus {
  readonly groups: readonly number[]
}

/** @throws AssayError `permission-denied` when the process is gone, or runs as another user than the one that connected. */
function readStatus(process: WorkloadProcess): ProcessStatus {
  let text: string
  try {
    text = readSmall(`/proc/${process.pid}/status`)
  } catch (cause) {
    throw refused('workload-gone', `process ${process.pid} has ended`, cause)
  }
  process.assertSame()
  // Real, effective, saved and file system user: the socket vouches for the effective one.
  const [, effective] = numbersAfter(text, '\nUid:')
  if (effective !== process.uid) {
    throw refused(
      'workload-changed',
      `process ${process.pid} connected as user ${process.uid} and now runs as user ${effective}`,
    )
  }
  return { groups: numbersAfter(text, '\nGroups:') }
}

/** Large enough for the status of a process in 65,536 groups, the most that Linux allows. */
const buffer = new Uint8Array(1024 * 1024)
const decoder = new TextDecoder('latin1')

/** A file below /proc, in as few system calls as can be: this is on the path of every call. */
function readSmall(path: string): string {
  const file = openSync(path, 'r')
  try {
    let length = 0
    for (;;) {
      const read = readSync(file, buffer, length, buffer.length - length, null)
      length += read
      // The kernel fills a short buffer as far as it goes; less than a page means that this was all.
      if (read < 4096) return decoder.decode(buffer.subarray(0, length))
    }
  } finally {
    closeSync(file)
  }
}

function refused(reason: string, message: string, cause?: unknown): AssayError {
  return new AssayError('permission-denied', message, { reason, cause })
}

function numbersAfter(text: string, label: string): number[] {
  const start = text.indexOf(label)
  if (start < 0) return []
  const end = text.indexOf('\n', start + 1)
  const line = text.slice(start + label.length, end < 0 ? undefined : end)
  return line.trim() === '' ? [] : line.trim().split(/\s+/).map(Number)
}

const fact = (name: string, value: string | number): Selector =>
  selector('unix', `${name}:${value}`)
