import type { SQLInputValue } from 'node:sqlite'
import { AssayError } from '#base/errors.ts'
import type { SetMatch } from '../../datastore.ts'
import type { MemberTableName } from './members.ts'

/** Terms that are joined by AND, and the values of their placeholders in order. */
export interface Condition {
  readonly where: readonly string[]
  readonly values: readonly SQLInputValue[]
}

/** Collects the terms of a filter whose fields may be absent. */
export class ConditionBuilder implements Condition {
  readonly where: string[] = []
  readonly values: SQLInputValue[] = []

  /** `column = value`, unless the value is undefined. */
  equals(column: string, value: string | boolean | undefined): this {
    if (value === undefined) return this
    return this.add(`${column} = ?`, typeof value === 'boolean' ? Number(value) : value)
  }

  /** `column` is one of these IDs or below one, unless they are undefined; of none of no IDs. */
  isBelow(column: string, prefixes: readonly string[] | undefined): this {
    if (prefixes === undefined) return this
    // '0' follows '/': what is between the two begins with the ID and a slash.
    const term = `(${column} = ? OR (${column} > ? AND ${column} < ?))`
    return this.add(
      prefixes.length === 0 ? '0' : `(${prefixes.map(() => term).join(' OR ')})`,
      ...prefixes.flatMap((prefix) => [prefix, `${prefix}/`, `${prefix}0`]),
    )
  }

  /**
   * Compares a row's set, kept as (member, owner, size of the owner's set) in `table`, with the set asked for.
   * As in SPIRE, each kind of match needs at least one member in common.
   *
   * @throws AssayError `invalid-argument` when the set asked for is empty.
   */
  matches(table: MemberTableName, match: SetMatch, members: readonly string[]): this {
    const asked = [...new Set(members)]
    if (asked.length === 0) {
      throw new AssayError(
        'invalid-argument',
        'cannot filter by an empty set: name at least one member',
      )
    }
    const json = JSON.stringify(asked)
    const shared = `SELECT owner FROM ${table} WHERE member IN (SELECT value FROM json_each(?))`
    switch (match) {
      case 'any':
        return this.add(`row IN (${shared})`, json)
      case 'superset':
        return this.add(`row IN (${shared} GROUP BY owner HAVING count(*) = ?)`, json, asked.length)
      case 'subset':
        return this.add(`row IN (${shared} GROUP BY owner HAVING count(*) = max(set_size))`, json)
      case 'exact':
        return this.add(
          `row IN (${shared} GROUP BY owner HAVING count(*) = ? AND max(set_size) = ?)`,
          json,
          asked.length,
          asked.length,
        )
    }
  }

  add(term: string, ...values: readonly SQLInputValue[]): this {
    this.where.push(term)
    this.values.push(...values)
    return this
  }
}
