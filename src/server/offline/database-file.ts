import { DatabaseSync } from 'node:sqlite'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { BundleTable } from '../datastore/sql/sqlite/bundle-table.ts'
import { applicationId, migrations } from '../datastore/sql/sqlite/migrations.ts'
import { lock } from '../datastore/sql/sqlite/open-database.ts'

/** The schema that this program writes. */
export const schemaVersion = migrations.length

/** What a database file turns out to be. */
export interface DatabaseFindings {
  /** `ok`, or what SQLite's check found first. */
  readonly damage: string
  /** False: another program made it. */
  readonly isOurs: boolean
  /** It holds triggers or views, which no server makes: what is written to it then does something else besides. */
  readonly hasProgram: boolean
  readonly schemaVersion: number
  /** Whose bundles it holds. */
  readonly trustDomains: readonly string[]
}

/**
 * Keeps servers out of the datastore at `path` until it is disposed of.
 *
 * @throws AssayError `unavailable`, reason `datastore-locked`, when one uses it.
 */
export const lockDatastore = (path: string): Disposable => lock(path)

/**
 * Looks at a database, without changing it; a running server is not disturbed.
 *
 * @throws Error when it cannot be opened.
 */
export function inspectDatabase(path: string): DatabaseFindings {
  const database = new DatabaseSync(path, { readOnly: true, timeout: 1000, returnArrays: true })
  try {
    const value = (query: string): unknown => Object.values(database.prepare(query).get() ?? {})[0]
    const damage = String(value('PRAGMA quick_check(1)'))
    const isOurs = value('PRAGMA application_id') === applicationId
    const hasProgram =
      value("SELECT count(*) FROM sqlite_schema WHERE type NOT IN ('table', 'index')") !== 0
    const rows =
      isOurs && !hasProgram ? database.prepare('SELECT trust_domain FROM bundles').all() : []
    return {
      damage,
      isOurs,
      hasProgram,
      schemaVersion: Number(value('PRAGMA user_version')),
      trustDomains: (rows as unknown as readonly (readonly [string])[]).map(([name]) => name),
    }
  } finally {
    database.close()
  }
}

/**
 * Makes a copy of an earlier state fit to go on from: numbers that only ever grow have grown since the copy was made, and
 * must not be given out again for something else. Agents that hold a newer entry or bundle would take the old for it.
 * Join tokens are removed: each may have been used.
 */
export function moveOn(path: string, by: number): void {
  const database = new DatabaseSync(path, { returnArrays: true })
  try {
    database.exec('PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; BEGIN IMMEDIATE')
    database.prepare('UPDATE feed SET revision = revision + ?').run(by)
    database.prepare('UPDATE entries SET revision_number = revision_number + ?').run(by)
    database.exec('DELETE FROM join_tokens')
    const names = database
      .prepare('SELECT trust_domain FROM bundles')
      .all() as unknown as readonly (readonly [TrustDomain])[]
    const bundles = new BundleTable(database)
    for (const [name] of names) bundles.moveOn(name, BigInt(by))
    database.exec('COMMIT')
  } finally {
    database.close()
  }
}
