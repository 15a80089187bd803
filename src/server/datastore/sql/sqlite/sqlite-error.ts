import { AssayError, type ErrorCode, messageOf } from '#base/errors.ts'

/** Primary result codes we tell apart (https://www.sqlite.org/rescode.html), with what an operator can do. */
const meanings: Readonly<Record<number, readonly [ErrorCode, string, string]>> = {
  5: ['unavailable', 'datastore-locked', 'another process holds its lock'],
  6: ['unavailable', 'datastore-locked', 'another process holds its lock'],
  8: [
    'failed-precondition',
    'datastore-read-only',
    'it cannot be written; check owner, mode and mount',
  ],
  10: ['unavailable', 'datastore-io-error', 'the disk reports an error'],
  11: ['internal', 'datastore-corrupt', 'the file is damaged; restore it from a backup'],
  13: ['resource-exhausted', 'datastore-full', 'the disk is full; free some space'],
  14: ['unavailable', 'datastore-unreachable', 'the file cannot be opened'],
  26: ['failed-precondition', 'datastore-not-sqlite', 'the file is not an SQLite database'],
}

/** The extended result code of an error thrown by `node:sqlite`; undefined for any other error. */
export function sqliteCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error)) return undefined
  return typeof error.errcode === 'number' ? error.errcode : undefined
}

/** `error` as `already-exists` with `message`, when a uniqueness or primary key constraint said no. */
export function takenError(error: unknown, message: string): unknown {
  const code = sqliteCode(error)
  if (code !== 2067 && code !== 1555) return error
  return new AssayError('already-exists', message, { cause: error })
}

/** What SQLite threw, as a failure a caller can tell apart. Anything else is returned as it is. */
export function datastoreError(error: unknown): unknown {
  const code = sqliteCode(error)
  if (code === undefined) return error
  const meaning = meanings[code & 0xff]
  if (meaning === undefined) {
    return new AssayError('internal', `datastore failed: ${messageOf(error)} (SQLite ${code})`, {
      reason: 'datastore-failed',
      cause: error,
    })
  }
  const [assayCode, reason, what] = meaning
  return new AssayError(assayCode, `datastore failed: ${what} (SQLite ${code})`, {
    reason,
    cause: error,
  })
}
