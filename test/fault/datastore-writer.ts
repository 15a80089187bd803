// Writes entries to the datastore at argv[2] until it is killed, and prints the id of each that is acknowledged.
import { writeSync } from 'node:fs'
import { silentLog } from '#base/log.ts'
import { openSqliteDatastore } from '#server/datastore/sql/sqlite.ts'
import { newEntry } from '../support/records.ts'

const [, , path = '', prefix = ''] = process.argv
const store = openSqliteDatastore({ path, log: silentLog })
for (let round = 0; ; round++) {
  const writes = Array.from({ length: 1 + (round % 20) }, async (_, i) => {
    const id = `${prefix}-${round}-${i}`
    await store.createEntry(newEntry(id))
    if (i % 2 === 1) await store.updateEntry(id, (entry) => ({ ...entry, hint: 'updated' }))
    writeSync(1, `${id}\n`)
  })
  await Promise.all(writes)
}
