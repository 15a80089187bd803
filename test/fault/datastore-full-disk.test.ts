import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { silentLog } from '#base/log.ts'
import { openSqliteDatastore } from '#server/datastore/sql/sqlite.ts'
import { newEntry } from '../support/records.ts'

/** A file system of one megabyte of its own; undefined, loudly, where it cannot be had. */
function smallDisk(t: TestContext): string | undefined {
  if (process.getuid?.() !== 0) {
    t.skip('NOT TESTED: a small disk needs root, to mount a tmpfs')
    return undefined
  }
  const directory = mkdtempSync(join(tmpdir(), 'assay-full-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'assay-test', directory])
  } catch (error) {
    rmdirSync(directory)
    t.skip(`NOT TESTED: cannot mount a tmpfs: ${error}`)
    return undefined
  }
  t.after(() => {
    execFileSync('umount', [directory])
    rmdirSync(directory)
  })
  return directory
}

function fill(path: string): void {
  const file = openSync(path, 'w')
  try {
    for (;;) writeSync(file, new Uint8Array(4096))
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
  } finally {
    closeSync(file)
  }
}

test('an SQLite datastore on a full disk refuses writes whole, goes on reading, and recovers', async (t) => {
  const disk = smallDisk(t)
  if (disk === undefined) return
  const path = join(disk, 'datastore.sqlite3')
  const filler = join(disk, 'filler')
  const acknowledged = new Set<string>()
  {
    await using store = openSqliteDatastore({ path, log: silentLog })
    const heard = new Set<string>()
    using _watching = store.watch(({ key }) => heard.add(key))
    const write = async (id: string): Promise<void> => {
      await store.createEntry(newEntry(id, { hint: 'x'.repeat(512) }))
      acknowledged.add(id)
    }
    for (let i = 0; i < 20; i++) await write(`before-${i}`)
    fill(filler)
    // The write-ahead log still has room for a few.
    let refused: unknown
    for (let i = 0; refused === undefined && i < 1000; i++) {
      const storm = Array.from({ length: 10 }, (_, j) => write(`full-${i}-${j}`))
      for (const result of await Promise.allSettled(storm)) {
        if (result.status === 'rejected') refused ??= result.reason
      }
    }
    assert.ok(refused instanceof Error && 'code' in refused && 'reason' in refused)
    assert.equal(refused.code, 'resource-exhausted')
    assert.equal(refused.reason, 'datastore-full')
    assert.match(refused.message, /the disk is full; free some space/)
    assert.equal(await store.countEntries({}), acknowledged.size)
    assert.deepEqual(heard, acknowledged)
    assert.equal(store.revision(), acknowledged.size)

    rmSync(filler)
    await write('after')
    assert.equal(await store.countEntries({}), acknowledged.size)
  }
  await using store = openSqliteDatastore({ path, log: silentLog })
  const { items } = await store.listEntries({}, { pageSize: 0, pageToken: '' })
  assert.deepEqual(new Set(items.map(({ id }) => id)), acknowledged)
  assert.equal(store.revision(), acknowledged.size)
})

test('openSqliteDatastore() on a full disk says so', async (t) => {
  const disk = smallDisk(t)
  if (disk === undefined) return
  fill(join(disk, 'filler'))
  const path = join(disk, 'state', 'datastore.sqlite3')
  assert.throws(() => openSqliteDatastore({ path, log: silentLog }), {
    code: 'resource-exhausted',
    reason: 'datastore-full',
    message: /^cannot open datastore .*free some space/,
  })
})
