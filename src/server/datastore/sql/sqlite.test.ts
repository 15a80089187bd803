import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { silentLog } from '#base/log.ts'
import { newEntry } from '../../../../test/support/records.ts'
import { openSqliteDatastore, type SqliteDatastore } from './sqlite.ts'

function newPath(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'assay-sqlite-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return join(directory, 'state', 'datastore.sqlite3')
}

const open = (path: string): SqliteDatastore => openSqliteDatastore({ path, log: silentLog })

test('openSqliteDatastore() makes a file and a directory that only their owner can read', async (t) => {
  const path = newPath(t)
  await using store = open(path)
  await store.createEntry(newEntry('e1'))
  assert.equal(statSync(join(path, '..')).mode & 0o777, 0o700)
  for (const name of [path, `${path}-wal`, `${path}-shm`, `${path}.lock`]) {
    assert.equal(statSync(name).mode & 0o777, 0o600, name)
  }
})

test('openSqliteDatastore() finds again what was written, and goes on counting revisions', async (t) => {
  const path = newPath(t)
  {
    await using store = open(path)
    await store.createEntry(newEntry('e1'))
    await store.deleteEntry('e1')
    await store.createEntry(newEntry('e2'))
  }
  await using store = open(path)
  assert.equal(store.revision(), 3)
  assert.deepEqual(await store.entry('e2'), newEntry('e2'))
  await store.createEntry(newEntry('e3'))
  assert.equal(store.revision(), 4)
})

test('openSqliteDatastore() refuses a file that another server uses, and leaves it readable', async (t) => {
  const path = newPath(t)
  {
    await using store = open(path)
    await store.createEntry(newEntry('e1'))
    assert.throws(() => open(path), {
      name: 'AssayError',
      code: 'unavailable',
      reason: 'datastore-locked',
      message: `cannot open datastore ${path}: another server is using it; stop that one or give this one a path of its own`,
    })
    using reader = new DatabaseSync(path, { readOnly: true })
    const row = reader.prepare('SELECT count(*) AS count FROM entries').get()
    assert.equal(row?.['count'], 1)
  }
  await using again = open(path)
  assert.equal(await again.countEntries({}), 1)
})

test('openSqliteDatastore() refuses a newer schema, naming both versions, and changes nothing', async (t) => {
  const path = newPath(t)
  const { schemaVersion } = await closed(open(path))
  const newer = schemaVersion + 1
  {
    using database = new DatabaseSync(path)
    database.exec(`PRAGMA user_version = ${newer}`)
  }
  assert.throws(() => open(path), {
    code: 'failed-precondition',
    reason: 'datastore-newer',
    message: new RegExp(`schema is version ${newer} and this server knows up to ${schemaVersion};`),
  })
  using database = new DatabaseSync(path)
  assert.equal(database.prepare('PRAGMA user_version').get()?.['user_version'], newer)
})

test('openSqliteDatastore() refuses a database of another program', (t) => {
  const path = join(newPath(t), '..', '..', 'other.sqlite3')
  {
    using database = new DatabaseSync(path)
    database.exec('CREATE TABLE theirs (a)')
  }
  assert.throws(() => open(path), { code: 'failed-precondition', reason: 'datastore-foreign' })
})

test('openSqliteDatastore() refuses what is no database, and what is damaged', async (t) => {
  const path = newPath(t)
  await closed(open(path))
  const noDatabase = `${path}.txt`
  writeFileSync(noDatabase, 'trust_domain: example.org\n'.repeat(100))
  assert.throws(() => open(noDatabase), {
    code: 'failed-precondition',
    reason: 'datastore-not-sqlite',
    message: /datastore\.sqlite3\.txt: .*not an SQLite database/,
  })
  truncateSync(path, 8192)
  assert.throws(() => open(path), {
    code: 'internal',
    reason: 'datastore-corrupt',
    message: /restore it from a backup/,
  })
})

test('openSqliteDatastore() says what is in the way of its file', (t) => {
  const path = newPath(t)
  writeFileSync(join(path, '..', '..', 'file'), '')
  assert.throws(() => open(join(path, '..', '..', 'file', 'db')), {
    code: 'failed-precondition',
    reason: 'datastore-unwritable',
    message: /^cannot open datastore .*\/file\/db: (EEXIST|ENOTDIR).*check owner, mode and mount/,
  })
})

test('openSqliteDatastore() closes the file again when it refuses it', async (t) => {
  const path = newPath(t)
  await closed(open(path))
  {
    using database = new DatabaseSync(path)
    database.exec('PRAGMA user_version = 99')
  }
  assert.throws(() => open(path), { reason: 'datastore-newer' })
  {
    using database = new DatabaseSync(path)
    database.exec('PRAGMA user_version = 1')
  }
  await closed(open(path))
})

test('listEntries() of 20,000 lets other work run at least every few milliseconds', async () => {
  await using store = open(':memory:')
  const count = 20_000
  await Promise.all(Array.from({ length: count }, (_, i) => store.createEntry(newEntry(`e${i}`))))
  let turns = 0
  let isDone = false
  const listing = store.listEntries({}, { pageSize: 0, pageToken: '' }).finally(() => {
    isDone = true
  })
  while (!isDone) {
    await new Promise<void>((resolve) => {
      // biome-ignore lint/style/noRestrictedGlobals: a turn of the event loop is what is counted
      setImmediate(resolve)
    })
    turns++
  }
  assert.equal((await listing).items.length, count)
  assert.ok(turns >= count / 500, `only ${turns} turns`)
})

/** The same store, closed. */
async function closed(store: SqliteDatastore): Promise<SqliteDatastore> {
  await store[Symbol.asyncDispose]()
  return store
}
