import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { AssayError } from '#base/errors.ts'
import type { Selector } from '#spiffe/selector.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { AttestedNodeRecord, Listed, NodeFilter, Page } from '../../datastore.ts'
import { writtenColumns } from './columns.ts'
import { type Condition, ConditionBuilder } from './condition.ts'
import { Members } from './members.ts'
import { countRows, listPage } from './paging.ts'
import type { Record } from './writer.ts'

const columns = `row, agent_id, attestation_type, serial_number, expires_at_seconds, new_serial_number,
  new_expires_at_seconds, can_reattest, selectors, agent_version, attested_at_seconds`

type Row = readonly [
  row: number,
  agentId: SpiffeId,
  attestationType: string,
  serialNumber: string,
  expiresAtSeconds: number,
  newSerialNumber: string,
  newExpiresAtSeconds: number,
  canReattest: number,
  selectors: string,
  agentVersion: string,
  attestedAtSeconds: number,
]

/** Attested nodes. Writes run inside a transaction of the `Writer`. */
export class NodeTable {
  readonly #database: DatabaseSync
  readonly #byId: StatementSync
  readonly #insert: StatementSync
  readonly #update: StatementSync
  readonly #delete: StatementSync
  readonly #selectors: Members

  constructor(database: DatabaseSync) {
    const names = writtenColumns(columns)
    const places = names.map(() => '?').join(', ')
    this.#database = database
    this.#byId = database.prepare(`SELECT ${columns} FROM nodes WHERE agent_id = ?`)
    this.#insert = database.prepare(`INSERT INTO nodes (${names.join(', ')}) VALUES (${places})`)
    this.#update = database.prepare(
      `UPDATE nodes SET ${names.map((name) => `${name} = ?`).join(', ')} WHERE row = ?`,
    )
    this.#delete = database.prepare('DELETE FROM nodes WHERE row = ?')
    this.#selectors = new Members(database, 'node_selectors')
  }

  get(agentId: SpiffeId): AttestedNodeRecord | undefined {
    const row = this.#row(agentId)
    return row && decode(row)
  }

  list(filter: NodeFilter, page: Page): Promise<Listed<AttestedNodeRecord>> {
    return listPage<Row, AttestedNodeRecord>(
      this.#database,
      { table: 'nodes', columns, condition: conditionOf(filter), decode },
      page,
    )
  }

  count(filter: NodeFilter): number {
    return countRows(this.#database, 'nodes', conditionOf(filter))
  }

  put(node: AttestedNodeRecord, record: Record): void {
    const row = this.#row(node.agentId)
    if (row === undefined) {
      const { lastInsertRowid } = this.#insert.run(...encode(node))
      this.#selectors.insert(Number(lastInsertRowid), node.selectors)
      record({ kind: 'node', key: node.agentId, value: node })
    } else {
      this.#replace(row, node, record)
    }
  }

  update(
    agentId: SpiffeId,
    change: (node: AttestedNodeRecord) => AttestedNodeRecord,
    record: Record,
  ): AttestedNodeRecord {
    const row = this.#row(agentId)
    if (row === undefined) {
      throw new AssayError('not-found', `cannot update node ${agentId}: not found`)
    }
    const after = { ...change(decode(row)), agentId }
    this.#replace(row, after, record)
    return after
  }

  write(
    agentId: SpiffeId,
    change: (node: AttestedNodeRecord | undefined) => AttestedNodeRecord,
    record: Record,
  ): AttestedNodeRecord {
    const node = { ...change(this.get(agentId)), agentId }
    this.put(node, record)
    return node
  }

  delete(agentId: SpiffeId, record: Record): AttestedNodeRecord {
    const row = this.#row(agentId)
    if (row === undefined) {
      throw new AssayError('not-found', `cannot delete node ${agentId}: not found`)
    }
    this.#delete.run(row[0])
    record({ kind: 'node', key: agentId, value: undefined })
    return decode(row)
  }

  #row(agentId: SpiffeId): Row | undefined {
    return this.#byId.get(agentId) as unknown as Row | undefined
  }

  #replace(row: Row, node: AttestedNodeRecord, record: Record): void {
    this.#update.run(...encode(node), row[0])
    // A renewal leaves them as they are, and is by far the most frequent write.
    if (JSON.stringify(node.selectors) !== row[8]) this.#selectors.replace(row[0], node.selectors)
    record({ kind: 'node', key: node.agentId, value: node })
  }
}

function conditionOf(filter: NodeFilter): Condition {
  const { agentIdPrefixes, attestationType, selectors, banned, canReattest, expiresBeforeSeconds } =
    filter
  const condition = new ConditionBuilder()
    .isBelow('agent_id', agentIdPrefixes)
    .equals('attestation_type', attestationType)
    .equals('can_reattest', canReattest)
  if (banned !== undefined) condition.add(banned ? "serial_number = ''" : "serial_number <> ''")
  if (expiresBeforeSeconds !== undefined) {
    condition.add('expires_at_seconds < ?', expiresBeforeSeconds)
  }
  if (selectors !== undefined) {
    condition.matches('node_selectors', selectors.match, selectors.selectors)
  }
  return condition
}

function encode(node: AttestedNodeRecord): readonly (string | number)[] {
  return [
    node.agentId,
    node.attestationType,
    node.serialNumber,
    node.expiresAtSeconds,
    node.newSerialNumber,
    node.newExpiresAtSeconds,
    Number(node.canReattest),
    JSON.stringify(node.selectors),
    node.agentVersion,
    node.attestedAtSeconds,
  ]
}

function decode(row: Row): AttestedNodeRecord {
  return {
    agentId: row[1],
    attestationType: row[2],
    serialNumber: row[3],
    expiresAtSeconds: row[4],
    newSerialNumber: row[5],
    newExpiresAtSeconds: row[6],
    canReattest: row[7] === 1,
    selectors: JSON.parse(row[8]) as readonly Selector[],
    agentVersion: row[9],
    attestedAtSeconds: row[10],
  }
}
