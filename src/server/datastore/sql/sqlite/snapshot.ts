import { closeSync, openSync, readdirSync, rmSync } from 'node:fs'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { backup, DatabaseSync } from 'node:sqlite'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Snapshot, SnapshotOptions } from '../../datastore.ts'
import { BundleTable } from './bundle-table.ts'

const folderPrefix = 'snapshot-'
/** Copied at once, between which other work goes on: 1 MiB. */
const pagesPerStep = 256

/**
 * Copies a database that is in use into a folder beside it (SQLite's online backup: the state of one moment, whatever is
 * written meanwhile). Join tokens are left out: they are secrets, and one that was used must not come back.
 */
export async function takeSnapshot(
  database: DatabaseSync,
  path: string,
  { signal, onProgress }: SnapshotOptions,
): Promise<Snapshot> {
  // What a process left that was killed.
  for (const name of readdirSync(dirname(path))) {
    if (name.startsWith(folderPrefix)) rmSync(join(dirname(path), name), { recursive: true })
  }
  const folder = await mkdtemp(join(dirname(path), folderPrefix))
  try {
    const copy = join(folder, 'datastore.sqlite3')
    closeSync(openSync(copy, 'wx', 0o600))
    await backup(database, copy, {
      rate: pagesPerStep,
      progress: ({ totalPages, remainingPages }) => {
        signal.throwIfAborted()
        onProgress(totalPages - remainingPages, totalPages)
      },
    })
    signal.throwIfAborted()
    const held = finish(copy)
    const { size } = await stat(copy)
    return {
      ...held,
      path: copy,
      bytes: size,
      [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
    }
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    throw error
  }
}

/** Makes the copy one file without secrets, and says what is in it. */
function finish(copy: string): Pick<Snapshot, 'schemaVersion' | 'revision' | 'bundles'> {
  const database = new DatabaseSync(copy, { returnArrays: true, allowExtension: false })
  try {
    database.exec(
      'PRAGMA journal_mode = DELETE; PRAGMA secure_delete = ON; PRAGMA trusted_schema = OFF; DELETE FROM join_tokens',
    )
    const number = (query: string): number =>
      Number(Object.values(database.prepare(query).get() ?? {})[0])
    const bundles = new Map<TrustDomain, bigint>()
    const names = database
      .prepare('SELECT trust_domain FROM bundles')
      .all() as unknown as readonly (readonly [TrustDomain])[]
    const table = new BundleTable(database)
    for (const [name] of names) bundles.set(name, table.get(name)?.sequenceNumber ?? 0n)
    return {
      schemaVersion: number('PRAGMA user_version'),
      revision: number('SELECT revision FROM feed'),
      bundles,
    }
  } finally {
    database.close()
  }
}
