import { silentLog } from '#base/log.ts'
import type { Datastore } from '#server/datastore/datastore.ts'
import { openSqliteDatastore } from '#server/datastore/sql/sqlite.ts'

/** A real datastore that keeps nothing: SQLite in memory. */
export function memoryDatastore(): Datastore {
  return openSqliteDatastore({ path: ':memory:', log: silentLog })
}
