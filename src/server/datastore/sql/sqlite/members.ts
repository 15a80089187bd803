import type { DatabaseSync, StatementSync } from 'node:sqlite'

/** Tables of (member, owner, size of the owner's set), by which rows are found that hold a set. */
export type MemberTableName = 'entry_selectors' | 'entry_federation' | 'node_selectors'

/** The sets of one table's rows, kept for searching. */
export class Members {
  readonly #insert: StatementSync
  readonly #delete: StatementSync

  constructor(database: DatabaseSync, table: MemberTableName) {
    this.#insert = database.prepare(
      `INSERT INTO ${table} (member, owner, set_size) SELECT value, ?, ? FROM json_each(?)`,
    )
    this.#delete = database.prepare(`DELETE FROM ${table} WHERE owner = ?`)
  }

  /** For a row that has none yet. Repeated members count once. */
  insert(owner: number, members: readonly string[]): void {
    if (members.length === 0) return
    const distinct = [...new Set(members)]
    this.#insert.run(owner, distinct.length, JSON.stringify(distinct))
  }

  replace(owner: number, members: readonly string[]): void {
    this.#delete.run(owner)
    this.insert(owner, members)
  }
}
