import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { writeOutputs } from './outputs.ts'

test('writeOutputs() that cannot write leaves nothing, and what stood in its way', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'assay-outputs-'))
  t.after(() => rm(directory, { recursive: true }))
  const at = (name: string): string => join(directory, name)
  await writeFile(at('b.new'), 'of somebody else')
  const files = new Map([
    [at('a'), utf8Bytes('a')],
    [at('b'), utf8Bytes('b')],
  ])
  await assert.rejects(writeOutputs(files), { code: 'unavailable', reason: 'ceremony-output' })
  assert.deepEqual(await readdir(directory), ['b.new'])
  assert.equal(await readFile(at('b.new'), 'utf8'), 'of somebody else')
})

test('writeOutputs() replaces nothing that came to be there after it was looked for', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'assay-outputs-'))
  t.after(() => rm(directory, { recursive: true }))
  const at = (name: string): string => join(directory, name)
  await writeFile(at('b'), 'of somebody else')
  const files = new Map([
    [at('a'), utf8Bytes('a')],
    [at('b'), utf8Bytes('b')],
  ])
  await assert.rejects(writeOutputs(files), { reason: 'ceremony-output', message: /EEXIST/ })
  assert.deepEqual(await readdir(directory), ['b'])
  assert.equal(await readFile(at('b'), 'utf8'), 'of somebody else')
  await rm(at('b'))
  await writeOutputs(files)
  assert.deepEqual(await readdir(directory), ['a', 'b'])
})
