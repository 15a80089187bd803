import assert from 'node:assert/strict'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { NameTable, parseNames } from './name-service.ts'

let folder = ''
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-names-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

test('parseNames() reads passwd(5) and group(5), first name first, and passes over what is not of that form', () => {
  const names = parseNames(
    '# comment\nroot:x:0:0::/root:/bin/sh\ntoor:x:0:0::\nbad:x:no\n:x:5\n\n+::::\n',
  )
  assert.deepEqual([...names], [[0, 'root']])
})

test('NameTable reads its file anew when it changes', async () => {
  const file = join(folder, 'passwd')
  writeFileSync(file, 'alice:x:4242424:\n')
  const clock = new FakeClock()
  const table = new NameTable({ database: 'passwd', file, clock, log: silentLog })
  table.refresh()
  assert.equal(await table.nameOf(4242424), 'alice')
  assert.equal(await table.idOf('alice'), 4242424)
  writeFileSync(`${file}.new`, 'bob:x:4242424:\n')
  renameSync(`${file}.new`, file)
  await clock.advance(Temporal.Duration.from({ seconds: 1 }))
  table.refresh()
  assert.equal(await table.nameOf(4242424), 'bob')
  assert.equal(await table.idOf('alice'), undefined)
})

test('NameTable asks the host for numbers that are not in its file, and remembers the answer', async () => {
  const file = join(folder, 'empty')
  writeFileSync(file, '')
  const clock = new FakeClock()
  const table = new NameTable({ database: 'passwd', file, clock, log: silentLog })
  assert.equal(await table.nameOf(0), 'root')
  assert.equal(table.nameOf(0), 'root')
  assert.equal(await table.nameOf(3_999_999_999), undefined)
  assert.equal(table.nameOf(3_999_999_999), undefined)
  assert.equal(await table.idOf('root'), 0)
  assert.equal(await table.idOf('nobody-of-this-name'), undefined)
  assert.equal(await table.idOf('--help'), undefined)
})
