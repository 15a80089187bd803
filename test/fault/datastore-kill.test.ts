import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { silentLog } from '#base/log.ts'
import { openSqliteDatastore } from '#server/datastore/sql/sqlite.ts'

const writer = new URL('./datastore-writer.ts', import.meta.url).pathname

/** Lets a process write, kills it after `count` acknowledgements, and returns those it made. */
async function writeUntilKilled(path: string, prefix: string, count: number): Promise<string[]> {
  const child = spawn(process.execPath, [writer, path, prefix], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  let killed = false
  for await (const chunk of child.stdout.setEncoding('utf8')) {
    text += chunk
    if (killed || text.split('\n').length <= count) continue
    killed = child.kill('SIGKILL')
  }
  assert.ok(killed, 'the writer ended by itself')
  return text.split('\n').slice(0, -1)
}

test('an SQLite datastore whose server is killed at any time has every acknowledged write', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'assay-kill-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'datastore.sqlite3')
  const acknowledged: string[] = []
  for (const [round, count] of [1, 17, 60, 150, 333].entries()) {
    acknowledged.push(...(await writeUntilKilled(path, `r${round}`, count)))
    await using store = openSqliteDatastore({ path, log: silentLog })
    const { items } = await store.listEntries({}, { pageSize: 0, pageToken: '' })
    const entries = new Map(items.map((entry) => [entry.id, entry]))
    for (const id of acknowledged) {
      const isUpdated = Number(id.split('-')[2]) % 2 === 1
      assert.equal(entries.get(id)?.hint, isUpdated ? 'updated' : '', id)
    }
    // Each entry and each update is one revision, acknowledged or not: none is lost, none is half there.
    const changes = items.reduce((sum, entry) => sum + 1 + entry.revisionNumber, 0)
    assert.equal(store.revision(), changes)
  }
})
