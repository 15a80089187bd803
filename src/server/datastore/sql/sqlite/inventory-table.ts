import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { AssayError } from '#base/errors.ts'
import type { EnrolmentState, InventoryRecord, Listed, Page, TpmClock } from '../../datastore.ts'
import { writtenColumns } from './columns.ts'
import { ConditionBuilder } from './condition.ts'
import { listPage } from './paging.ts'
import type { Record } from './writer.ts'

const columns = `row, endorsement_key_hash, state, node_name, last_address, first_seen_seconds,
  last_seen_seconds, description, clock`

type Row = readonly [
  row: number,
  endorsementKeyHash: string,
  state: EnrolmentState,
  nodeName: string,
  lastAddress: string,
  firstSeenSeconds: number,
  lastSeenSeconds: number,
  description: string,
  clock: string | null,
]

/** TPMs by endorsement key. Writes run inside a transaction of the `Writer`. */
export class InventoryTable {
  readonly #database: DatabaseSync
  readonly #byHash: StatementSync
  readonly #put: StatementSync
  readonly #delete: StatementSync

  constructor(database: DatabaseSync) {
    const names = writtenColumns(columns)
    const replaced = names.slice(1).map((name) => `${name} = excluded.${name}`)
    this.#database = database
    this.#byHash = database.prepare(
      `SELECT ${columns} FROM inventory WHERE endorsement_key_hash = ?`,
    )
    this.#put = database.prepare(
      `INSERT INTO inventory (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})
       ON CONFLICT (endorsement_key_hash) DO UPDATE SET ${replaced.join(', ')}`,
    )
    this.#delete = database.prepare('DELETE FROM inventory WHERE endorsement_key_hash = ?')
  }

  get(endorsementKeyHash: string): InventoryRecord | undefined {
    const row = this.#byHash.get(endorsementKeyHash) as unknown as Row | undefined
    return row && decode(row)
  }

  list(state: EnrolmentState | undefined, page: Page): Promise<Listed<InventoryRecord>> {
    const condition = new ConditionBuilder().equals('state', state)
    return listPage<Row, InventoryRecord>(
      this.#database,
      { table: 'inventory', columns, condition, decode },
      page,
    )
  }

  put(record: InventoryRecord, changes: Record): void {
    this.#put.run(
      record.endorsementKeyHash,
      record.state,
      record.nodeName,
      record.lastAddress,
      record.firstSeenSeconds,
      record.lastSeenSeconds,
      record.description,
      record.clock === undefined ? null : encodeClock(record.clock),
    )
    changes({ kind: 'inventory', key: record.endorsementKeyHash, value: record })
  }

  update(
    endorsementKeyHash: string,
    change: (record: InventoryRecord) => InventoryRecord,
    changes: Record,
  ): InventoryRecord {
    return this.write(
      endorsementKeyHash,
      (present) => {
        if (present !== undefined) return change(present)
        throw new AssayError(
          'not-found',
          `cannot update inventory record ${endorsementKeyHash}: not found`,
        )
      },
      changes,
    )
  }

  write(
    endorsementKeyHash: string,
    change: (record: InventoryRecord | undefined) => InventoryRecord,
    changes: Record,
  ): InventoryRecord {
    const after = { ...change(this.get(endorsementKeyHash)), endorsementKeyHash }
    this.put(after, changes)
    return after
  }

  delete(
    endorsementKeyHash: string,
    state: EnrolmentState | undefined,
    changes: Record,
  ): InventoryRecord | undefined {
    const present = this.get(endorsementKeyHash)
    if (present === undefined || (state !== undefined && present.state !== state)) return undefined
    this.#delete.run(endorsementKeyHash)
    changes({ kind: 'inventory', key: endorsementKeyHash, value: undefined })
    return present
  }
}

function decode(row: Row): InventoryRecord {
  return {
    endorsementKeyHash: row[1],
    state: row[2],
    nodeName: row[3],
    lastAddress: row[4],
    firstSeenSeconds: row[5],
    lastSeenSeconds: row[6],
    description: row[7],
    clock: row[8] === null ? undefined : decodeClock(row[8]),
  }
}

/** `resetCount restartCount clock firmwareVersion`, in decimal: the last two need all 64 bits. */
function encodeClock({ resetCount, restartCount, clock, firmwareVersion }: TpmClock): string {
  return `${resetCount} ${restartCount} ${clock} ${firmwareVersion}`
}

function decodeClock(text: string): TpmClock {
  const [resetCount = '', restartCount = '', clock = '', firmwareVersion = ''] = text.split(' ')
  return {
    resetCount: Number(resetCount),
    restartCount: Number(restartCount),
    clock: BigInt(clock),
    firmwareVersion: BigInt(firmwareVersion),
  }
}
