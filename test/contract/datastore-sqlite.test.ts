import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLog } from '#base/log.ts'
import { openSqliteDatastore } from '#server/datastore/sql/sqlite.ts'
import { datastoreContract } from './datastore.ts'

datastoreContract('SQLite in memory', async () =>
  openSqliteDatastore({ path: ':memory:', log: silentLog }),
)

datastoreContract('SQLite in a file', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'assay-datastore-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return openSqliteDatastore({ path: join(directory, 'datastore.sqlite3'), log: silentLog })
})
