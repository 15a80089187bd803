import type { DatabaseSync } from 'node:sqlite'
import { AssayError } from '#base/errors.ts'

/** One step of the schema. A released step never changes: the next one is added. */
export interface Migration {
  readonly name: string
  readonly sql: string
}

/** The steps in order; the schema's version is how many have been made. */
export const migrations: readonly Migration[] = [
  {
    name: 'entries, nodes, bundles, join tokens, inventory and journals',
    sql: `
      CREATE TABLE feed (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        revision INTEGER NOT NULL
      ) STRICT;
      INSERT INTO feed VALUES (1, 0);

      CREATE TABLE bundles (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        trust_domain TEXT NOT NULL UNIQUE,
        document TEXT NOT NULL
      ) STRICT;

      -- Sets stand in their row as JSON, to be read at once, and in a table of members, to be searched.
      CREATE TABLE entries (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        spiffe_id TEXT NOT NULL,
        parent_id TEXT NOT NULL,
        selectors TEXT NOT NULL,
        x509_svid_ttl_seconds INTEGER NOT NULL,
        jwt_svid_ttl_seconds INTEGER NOT NULL,
        federates_with TEXT NOT NULL,
        dns_names TEXT NOT NULL,
        admin INTEGER NOT NULL,
        downstream INTEGER NOT NULL,
        store_svid INTEGER NOT NULL,
        hint TEXT NOT NULL,
        expires_at_seconds INTEGER NOT NULL,
        revision_number INTEGER NOT NULL,
        created_at_seconds INTEGER NOT NULL,
        disable_x509_svid_prefetch INTEGER NOT NULL,
        jwt_svid_include_jti INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX entries_by_parent ON entries (parent_id, spiffe_id);
      CREATE INDEX entries_by_spiffe_id ON entries (spiffe_id);
      CREATE INDEX entries_by_expiry ON entries (expires_at_seconds) WHERE expires_at_seconds > 0;

      CREATE TABLE entry_selectors (
        member TEXT NOT NULL,
        owner INTEGER NOT NULL REFERENCES entries (row) ON DELETE CASCADE,
        set_size INTEGER NOT NULL,
        PRIMARY KEY (member, owner)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX entry_selectors_by_owner ON entry_selectors (owner);

      CREATE TABLE entry_federation (
        member TEXT NOT NULL REFERENCES bundles (trust_domain),
        owner INTEGER NOT NULL REFERENCES entries (row) ON DELETE CASCADE,
        set_size INTEGER NOT NULL,
        PRIMARY KEY (member, owner)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX entry_federation_by_owner ON entry_federation (owner);

      CREATE TABLE nodes (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        agent_id TEXT NOT NULL UNIQUE,
        attestation_type TEXT NOT NULL,
        serial_number TEXT NOT NULL,
        expires_at_seconds INTEGER NOT NULL,
        new_serial_number TEXT NOT NULL,
        new_expires_at_seconds INTEGER NOT NULL,
        can_reattest INTEGER NOT NULL,
        selectors TEXT NOT NULL,
        agent_version TEXT NOT NULL,
        attested_at_seconds INTEGER NOT NULL
      ) STRICT;

      CREATE TABLE node_selectors (
        member TEXT NOT NULL,
        owner INTEGER NOT NULL REFERENCES nodes (row) ON DELETE CASCADE,
        set_size INTEGER NOT NULL,
        PRIMARY KEY (member, owner)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX node_selectors_by_owner ON node_selectors (owner);

      CREATE TABLE join_tokens (
        value TEXT PRIMARY KEY,
        expires_at_seconds INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE inventory (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        endorsement_key_hash TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        node_name TEXT NOT NULL,
        last_address TEXT NOT NULL,
        first_seen_seconds INTEGER NOT NULL,
        last_seen_seconds INTEGER NOT NULL,
        description TEXT NOT NULL,
        clock TEXT
      ) STRICT;
      CREATE INDEX inventory_by_state ON inventory (state);

      CREATE TABLE journals (
        server TEXT PRIMARY KEY,
        document TEXT NOT NULL
      ) STRICT, WITHOUT ROWID;
    `,
  },
]

/** `ASSY`: marks the file as ours (https://www.sqlite.org/pragma.html#pragma_application_id). */
export const applicationId = 0x41_53_53_59

/**
 * Brings a database to the newest schema, each step in a transaction of its own.
 *
 * @returns the version it had, and the one it has.
 * @throws AssayError `failed-precondition` when a newer Assay or another program has written it. It is unchanged then.
 */
export function migrate(
  database: DatabaseSync,
  steps: readonly Migration[] = migrations,
): { readonly from: number; readonly to: number } {
  const from = pragma(database, 'user_version')
  const owner = pragma(database, 'application_id')
  const isEmpty = database.prepare('SELECT 1 FROM sqlite_schema').get() === undefined
  if (owner !== applicationId && !isEmpty) {
    throw new AssayError(
      'failed-precondition',
      'cannot use the datastore: the database was made by another program; give a path of its own',
      { reason: 'datastore-foreign' },
    )
  }
  if (from > steps.length) {
    throw new AssayError(
      'failed-precondition',
      `cannot use the datastore: its schema is version ${from} and this server knows up to ${steps.length}; run a server that is not older than the last one`,
      { reason: 'datastore-newer' },
    )
  }
  for (const [index, { sql }] of steps.entries()) {
    const version = index + 1
    if (version <= from) continue
    database.exec('BEGIN IMMEDIATE')
    try {
      database.exec(sql)
      database.exec(`PRAGMA user_version = ${version}; PRAGMA application_id = ${applicationId}`)
      database.exec('COMMIT')
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK')
      throw error
    }
  }
  return { from, to: steps.length }
}

function pragma(database: DatabaseSync, name: string): number {
  return Number(Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0])
}
