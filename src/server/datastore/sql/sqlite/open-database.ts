import { chmodSync, closeSync, constants, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { migrate } from './migrations.ts'
import { datastoreError, sqliteCode } from './sqlite-error.ts'

/** An open database of the newest schema, and the lock that keeps other servers out. */
export interface OpenDatabase extends Disposable {
  readonly database: DatabaseSync
  readonly schemaVersion: number
}

/** How long a statement waits for a lock that a backup holds; the whole process waits with it. */
const busyTimeoutMs = 250

/**
 * Opens the database at `path`, made when absent: file mode 0600 in a directory of mode 0700, write-ahead log,
 * every commit followed by `fsync`. `:memory:` is a database of this process alone.
 *
 * One server uses a file at a time, because caches follow the change feed of their own process. The lock is an
 * SQLite lock on `<path>.lock`, so it ends with the process and a running database can still be backed up.
 *
 * @throws AssayError that names the path, what is wrong and what to do.
 */
export function openDatabase(path: string, { log }: { readonly log: Log }): OpenDatabase {
  using undo = new DisposableStack()
  try {
    if (path !== ':memory:') {
      makePrivateFile(path, log)
      undo.use(lock(path))
    }
    const database = undo.use(connect(path))
    database.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY',
    )
    const [damage] = Object.values(database.prepare('PRAGMA quick_check(1)').get() ?? {})
    if (damage !== 'ok') {
      throw new AssayError(
        'internal',
        `the file is damaged (${damage}); restore it from a backup`,
        { reason: 'datastore-corrupt' },
      )
    }
    const { from, to } = migrate(database)
    if (from !== to) log.info({ path, from, to }, 'datastore schema migrated')
    const held = undo.move()
    return { database, schemaVersion: to, [Symbol.dispose]: () => held.dispose() }
  } catch (error) {
    throw cannotOpen(path, error)
  }
}

/** A connection that yields rows as arrays: three times as fast as objects on long lists. */
function connect(path: string): DatabaseSync {
  return new DatabaseSync(path, {
    timeout: busyTimeoutMs,
    enableForeignKeyConstraints: true,
    enableDoubleQuotedStringLiterals: false,
    allowExtension: false,
    defensive: true,
    returnArrays: true,
  })
}

function makePrivateFile(path: string, log: Log): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    // SQLite gives its log and index files the mode of the database.
    closeSync(openSync(path, 'a', 0o600))
    if ((statSync(path).mode & 0o077) !== 0) {
      chmodSync(path, 0o600)
      log.warn({ path }, 'datastore was readable by others; its mode is now 0600')
    }
  } catch (error) {
    throw cannotWrite(error)
  }
}

/** Keeps other servers out of the database at `path` until it is disposed of. @throws AssayError `datastore-locked`. */
export function lock(path: string): Disposable {
  const held = `${path}.lock`
  const { O_WRONLY, O_CREAT, O_NOFOLLOW } = constants
  // Root restores into a directory of the server's user, who must not have it make a file somewhere else.
  closeSync(openSync(held, O_WRONLY | O_CREAT | O_NOFOLLOW, 0o600))
  const database = new DatabaseSync(held, { timeout: 0 })
  try {
    database.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    database.close()
    if (sqliteCode(error) !== 5) throw error
    throw inUse(error)
  }
  return { [Symbol.dispose]: () => database.close() }
}

function cannotOpen(path: string, cause: unknown): unknown {
  const error = datastoreError(cause)
  if (!(error instanceof AssayError)) return error
  return new AssayError(error.code, `cannot open datastore ${path}: ${error.message}`, {
    cause,
    ...(error.reason === undefined ? {} : { reason: error.reason }),
  })
}

function cannotWrite(cause: unknown): AssayError {
  const isFull = cause instanceof Error && 'code' in cause && cause.code === 'ENOSPC'
  return new AssayError(
    isFull ? 'resource-exhausted' : 'failed-precondition',
    `${messageOf(cause)}; ${isFull ? 'free some space' : 'check owner, mode and mount'}`,
    { reason: isFull ? 'datastore-full' : 'datastore-unwritable', cause },
  )
}

function inUse(cause: unknown): AssayError {
  return new AssayError(
    'unavailable',
    'another server is using it; stop that one or give this one a path of its own',
    { reason: 'datastore-locked', cause },
  )
}
