import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { silentLog } from '#base/log.ts'
import { lock, openDatabase } from './open-database.ts'

test('openDatabase() sets what durability and integrity rest on', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'assay-sqlite-'))
  t.after(() => rmSync(directory, { recursive: true }))
  using open = openDatabase(join(directory, 'db'), { log: silentLog })
  const pragma = (name: string): unknown =>
    Object.values(open.database.prepare(`PRAGMA ${name}`).get() ?? {})[0]
  assert.equal(pragma('journal_mode'), 'wal')
  assert.equal(pragma('synchronous'), 2) // FULL: a commit is an fsync
  assert.equal(pragma('foreign_keys'), 1)
  assert.equal(pragma('trusted_schema'), 0)
})

test('lock() makes no file where a link in its place leads', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'assay-sqlite-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const elsewhere = join(directory, 'elsewhere')
  symlinkSync(elsewhere, join(directory, 'db.lock'))
  assert.throws(() => lock(join(directory, 'db')), { code: 'ELOOP' })
  assert.equal(existsSync(elsewhere), false)
})
