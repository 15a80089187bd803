import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { type Migration, migrate } from './migrations.ts'

const first: Migration = { name: 'first', sql: 'CREATE TABLE a (x); INSERT INTO a VALUES (1)' }
const second: Migration = { name: 'second', sql: 'ALTER TABLE a ADD COLUMN y DEFAULT 2' }
const broken: Migration = { name: 'broken', sql: 'ALTER TABLE a ADD COLUMN z; SELECT nonsense' }

const versionOf = (database: DatabaseSync): unknown =>
  database.prepare('PRAGMA user_version').get()?.['user_version']

test('migrate() brings an older database to the newest schema with its data', () => {
  using database = new DatabaseSync(':memory:')
  assert.deepEqual(migrate(database, [first]), { from: 0, to: 1 })
  assert.deepEqual(migrate(database, [first, second]), { from: 1, to: 2 })
  assert.deepEqual({ ...database.prepare('SELECT * FROM a').get() }, { x: 1, y: 2 })
  assert.deepEqual(migrate(database, [first, second]), { from: 2, to: 2 })
})

test('migrate() undoes the whole of a step that fails, and keeps the steps before it', () => {
  using database = new DatabaseSync(':memory:')
  migrate(database, [first])
  assert.throws(() => migrate(database, [first, second, broken]), /nonsense/)
  assert.equal(versionOf(database), 2)
  assert.deepEqual({ ...database.prepare('SELECT * FROM a').get() }, { x: 1, y: 2 })
  assert.equal(database.isTransaction, false)
})

test('migrate() refuses a newer schema and another program’s database', () => {
  using newer = new DatabaseSync(':memory:')
  migrate(newer, [first, second])
  assert.throws(() => migrate(newer, [first]), {
    reason: 'datastore-newer',
    message: /is version 2 and this server knows up to 1;/,
  })
  using foreign = new DatabaseSync(':memory:')
  foreign.exec('CREATE TABLE theirs (a)')
  assert.throws(() => migrate(foreign, [first]), { reason: 'datastore-foreign' })
  assert.equal(versionOf(foreign), 0)
})
