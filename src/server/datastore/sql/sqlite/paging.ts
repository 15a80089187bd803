import type { DatabaseSync, SQLInputValue } from 'node:sqlite'
import { setImmediate as endOfTurn } from 'node:timers/promises'
import { AssayError } from '#base/errors.ts'
import type { Listed, Page } from '../../datastore.ts'
import type { Condition } from './condition.ts'
import { datastoreError } from './sqlite-error.ts'

/** Rows read between two turns of the event loop: about 2 ms. */
const rowsPerTurn = 500

/** A list of rows in order of their row number, which is each row's first column. */
export interface Listing<Row extends readonly unknown[], T> {
  readonly table: string
  readonly columns: string
  readonly condition: Condition
  readonly decode: (row: Row) => T
}

/**
 * One page. Its token is the row number of its last row, in decimal; a page that is full has one even when
 * nothing follows, as SPIRE's. Long pages are read in pieces between which other work runs, so a record that
 * changes meanwhile is seen before or after its change.
 */
export async function listPage<Row extends readonly unknown[], T>(
  database: DatabaseSync,
  listing: Listing<Row, T>,
  page: Page,
): Promise<Listed<T>> {
  const { table, columns, condition, decode } = listing
  if (!Number.isSafeInteger(page.pageSize) || page.pageSize < 0) {
    throw new AssayError('invalid-argument', `cannot list: page size ${page.pageSize} is not valid`)
  }
  let after = parsePageToken(page.pageToken)
  const wanted = page.pageSize === 0 ? Number.POSITIVE_INFINITY : page.pageSize
  try {
    const where = [...condition.where, 'row > ?'].join(' AND ')
    const statement = database.prepare(
      `SELECT ${columns} FROM ${table} WHERE ${where} ORDER BY row LIMIT ?`,
    )
    const items: T[] = []
    for (;;) {
      const limit = Math.min(rowsPerTurn, wanted - items.length)
      const rows = statement.all(...condition.values, after, limit) as unknown as readonly Row[]
      for (const row of rows) items.push(decode(row))
      after = Number(rows.at(-1)?.[0] ?? after)
      if (rows.length < limit) return { items, nextPageToken: '' }
      if (limit === rowsPerTurn) await endOfTurn()
      if (items.length === wanted) return { items, nextPageToken: String(after) }
    }
  } catch (error) {
    throw datastoreError(error)
  }
}

/** How many rows meet a condition. */
export function countRows(database: DatabaseSync, table: string, condition: Condition): number {
  const where = condition.where.length === 0 ? '' : ` WHERE ${condition.where.join(' AND ')}`
  const values: readonly SQLInputValue[] = condition.values
  const row = database.prepare(`SELECT count(*) FROM ${table}${where}`).get(...values)
  return Number(Object.values(row ?? {})[0])
}

function parsePageToken(token: string): number {
  if (token === '') return 0
  const row = /^\d{1,16}$/.test(token) ? Number(token) : Number.NaN
  if (!Number.isSafeInteger(row)) {
    throw new AssayError(
      'invalid-argument',
      `cannot list: page token ${JSON.stringify(token.slice(0, 64))} is not one this server gave`,
    )
  }
  return row
}
