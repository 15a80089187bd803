import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type {
  AttestedNodeRecord,
  BundleDeletion,
  Change,
  Datastore,
  EnrolmentState,
  EntryFilter,
  InventoryRecord,
  JoinToken,
  Listed,
  NodeFilter,
  Page,
  Snapshot,
  SnapshotOptions,
} from '../datastore.ts'
import { BundleTable } from './sqlite/bundle-table.ts'
import { EntryTable } from './sqlite/entry-table.ts'
import { InventoryTable } from './sqlite/inventory-table.ts'
import { NodeTable } from './sqlite/node-table.ts'
import { type OpenDatabase, openDatabase } from './sqlite/open-database.ts'
import { takeSnapshot } from './sqlite/snapshot.ts'
import { datastoreError, takenError } from './sqlite/sqlite-error.ts'
import { Writer } from './sqlite/writer.ts'

/** A datastore in one file on this machine. */
export interface SqliteDatastore extends Datastore {
  /** How many migrations the file has seen. */
  readonly schemaVersion: number
}

/**
 * Opens, and where needed makes or migrates, the datastore at `path`; `:memory:` keeps nothing.
 *
 * @throws AssayError that names the path, what is wrong and what to do: `unavailable` when another server uses
 * it, `failed-precondition` when it is of a newer schema, of another program or cannot be written, `internal`
 * when it is damaged, `resource-exhausted` when the disk is full.
 */
export function openSqliteDatastore(options: {
  readonly path: string
  readonly log: Log
}): SqliteDatastore {
  const log = options.log.child({ component: 'datastore' })
  return new Sqlite(openDatabase(options.path, { log }), options.path, log)
}

class Sqlite implements SqliteDatastore {
  readonly schemaVersion: number
  readonly #open: OpenDatabase
  readonly #path: string
  readonly #writer: Writer
  readonly #entries: EntryTable
  readonly #nodes: NodeTable
  readonly #bundles: BundleTable
  readonly #inventory: InventoryTable
  readonly #insertToken: StatementSync
  readonly #takeToken: StatementSync
  readonly #pruneTokens: StatementSync
  readonly #journal: StatementSync
  readonly #putJournal: StatementSync

  constructor(open: OpenDatabase, path: string, log: Log) {
    const database: DatabaseSync = open.database
    this.schemaVersion = open.schemaVersion
    this.#open = open
    this.#path = path
    this.#writer = new Writer(database, { log })
    this.#entries = new EntryTable(database)
    this.#nodes = new NodeTable(database)
    this.#bundles = new BundleTable(database)
    this.#inventory = new InventoryTable(database)
    this.#insertToken = database.prepare('INSERT INTO join_tokens VALUES (?, ?)')
    this.#takeToken = database.prepare(
      'DELETE FROM join_tokens WHERE value = ? RETURNING value, expires_at_seconds',
    )
    this.#pruneTokens = database.prepare('DELETE FROM join_tokens WHERE expires_at_seconds < ?')
    this.#journal = database.prepare('SELECT document FROM journals WHERE server = ?')
    this.#putJournal = database.prepare(
      `INSERT INTO journals VALUES (?, ?)
       ON CONFLICT (server) DO UPDATE SET document = excluded.document`,
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close()
    this.#open[Symbol.dispose]()
  }

  revision(): number {
    return this.#writer.revision
  }

  watch(listener: (change: Change) => void): Disposable {
    return this.#writer.watch(listener)
  }

  createEntry(
    entry: RegistrationEntry,
  ): Promise<{ readonly entry: RegistrationEntry; readonly existing: boolean }> {
    return this.#writer.write((record) => this.#entries.create(entry, record))
  }

  updateEntry(
    id: string,
    change: (entry: RegistrationEntry) => RegistrationEntry,
  ): Promise<RegistrationEntry> {
    return this.#writer.write((record) => this.#entries.update(id, change, record))
  }

  deleteEntry(id: string, check?: (entry: RegistrationEntry) => void): Promise<RegistrationEntry> {
    return this.#writer.write((record) => this.#entries.delete(id, { record, check }))
  }

  async entry(id: string): Promise<RegistrationEntry | undefined> {
    return this.#read(() => this.#entries.get(id))
  }

  async listEntries(filter: EntryFilter, page: Page): Promise<Listed<RegistrationEntry>> {
    return this.#read(() => this.#entries.list(filter, page))
  }

  async countEntries(filter: EntryFilter): Promise<number> {
    return this.#read(() => this.#entries.count(filter))
  }

  pruneEntries(nowSeconds: number): Promise<readonly RegistrationEntry[]> {
    return this.#writer.write((record) => this.#entries.prune(nowSeconds, record))
  }

  putNode(node: AttestedNodeRecord): Promise<void> {
    return this.#writer.write((record) => this.#nodes.put(node, record))
  }

  updateNode(
    agentId: SpiffeId,
    change: (node: AttestedNodeRecord) => AttestedNodeRecord,
  ): Promise<AttestedNodeRecord> {
    return this.#writer.write((record) => this.#nodes.update(agentId, change, record))
  }

  writeNode(
    agentId: SpiffeId,
    change: (node: AttestedNodeRecord | undefined) => AttestedNodeRecord,
  ): Promise<AttestedNodeRecord> {
    return this.#writer.write((record) => this.#nodes.write(agentId, change, record))
  }

  deleteNode(agentId: SpiffeId): Promise<AttestedNodeRecord> {
    return this.#writer.write((record) => this.#nodes.delete(agentId, record))
  }

  async node(agentId: SpiffeId): Promise<AttestedNodeRecord | undefined> {
    return this.#read(() => this.#nodes.get(agentId))
  }

  async listNodes(filter: NodeFilter, page: Page): Promise<Listed<AttestedNodeRecord>> {
    return this.#read(() => this.#nodes.list(filter, page))
  }

  async countNodes(filter: NodeFilter): Promise<number> {
    return this.#read(() => this.#nodes.count(filter))
  }

  createJoinToken({ value, expiresAtSeconds }: JoinToken): Promise<void> {
    return this.#writer.write(() => {
      try {
        this.#insertToken.run(value, expiresAtSeconds)
      } catch (error) {
        throw takenError(error, 'cannot create join token: it exists already')
      }
    })
  }

  takeJoinToken(value: string): Promise<JoinToken | undefined> {
    return this.#writer.write(() => {
      const row = this.#takeToken.get(value) as unknown as [string, number] | undefined
      return row && { value: row[0], expiresAtSeconds: row[1] }
    })
  }

  pruneJoinTokens(nowSeconds: number): Promise<number> {
    return this.#writer.write(() => Number(this.#pruneTokens.run(nowSeconds).changes))
  }

  async bundle(trustDomain: TrustDomain): Promise<Bundle | undefined> {
    return this.#read(() => this.#bundles.get(trustDomain))
  }

  async listBundles(page: Page): Promise<Listed<Bundle>> {
    return this.#read(() => this.#bundles.list(page))
  }

  updateBundle(
    trustDomain: TrustDomain,
    change: (bundle: Bundle | undefined) => Bundle,
  ): Promise<Bundle> {
    return this.#writer.write((record) => this.#bundles.update(trustDomain, change, record))
  }

  deleteBundle(
    trustDomain: TrustDomain,
    mode: BundleDeletion,
    check?: (entry: RegistrationEntry) => void,
  ): Promise<void> {
    return this.#writer.write((record) => {
      if (check !== undefined && mode !== 'restrict') {
        this.#entries.federatingWith(trustDomain).forEach(check)
      }
      if (mode === 'delete') this.#entries.deleteFederating(trustDomain, record)
      if (mode === 'dissociate') this.#entries.dissociate(trustDomain, record)
      const federating = this.#entries.federatingWith(trustDomain).length
      if (federating > 0) {
        throw new AssayError(
          'failed-precondition',
          `cannot delete the bundle of ${trustDomain}: ${federating} entries federate with it; delete or dissociate them`,
          { reason: 'bundle-in-use' },
        )
      }
      if (!this.#bundles.delete(trustDomain, record)) {
        throw new AssayError('not-found', `cannot delete the bundle of ${trustDomain}: not found`)
      }
    })
  }

  async inventoryRecord(endorsementKeyHash: string): Promise<InventoryRecord | undefined> {
    return this.#read(() => this.#inventory.get(endorsementKeyHash))
  }

  putInventory(records: readonly InventoryRecord[]): Promise<void> {
    return this.#writer.write((changes) => {
      for (const record of records) this.#inventory.put(record, changes)
    })
  }

  updateInventory(
    endorsementKeyHash: string,
    change: (record: InventoryRecord) => InventoryRecord,
  ): Promise<InventoryRecord> {
    return this.#writer.write((changes) =>
      this.#inventory.update(endorsementKeyHash, change, changes),
    )
  }

  writeInventory(
    endorsementKeyHash: string,
    change: (record: InventoryRecord | undefined) => InventoryRecord,
  ): Promise<InventoryRecord> {
    return this.#writer.write((changes) =>
      this.#inventory.write(endorsementKeyHash, change, changes),
    )
  }

  deleteInventory(
    endorsementKeyHash: string,
    state?: EnrolmentState,
  ): Promise<InventoryRecord | undefined> {
    return this.#writer.write((changes) =>
      this.#inventory.delete(endorsementKeyHash, state, changes),
    )
  }

  async listInventory(
    state: EnrolmentState | undefined,
    page: Page,
  ): Promise<Listed<InventoryRecord>> {
    return this.#read(() => this.#inventory.list(state, page))
  }

  async snapshot(options: SnapshotOptions): Promise<Snapshot> {
    if (this.#path === ':memory:') {
      throw new AssayError('unimplemented', 'cannot copy a datastore that is in memory only')
    }
    try {
      return await takeSnapshot(this.#open.database, this.#path, options)
    } catch (error) {
      throw datastoreError(error)
    }
  }

  async journal(server: string): Promise<string | undefined> {
    return this.#read(() => {
      const row = this.#journal.get(server) as unknown as [string] | undefined
      return row?.[0]
    })
  }

  putJournal(server: string, document: string): Promise<void> {
    return this.#writer.write(() => void this.#putJournal.run(server, document))
  }

  #read<T>(work: () => T): T {
    if (!this.#open.database.isOpen) {
      throw new AssayError('unavailable', 'cannot read: the datastore is closed')
    }
    try {
      return work()
    } catch (error) {
      throw datastoreError(error)
    }
  }
}
