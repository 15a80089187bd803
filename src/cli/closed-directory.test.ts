import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'node:test'
import { closedDirectory } from './closed-directory.ts'

test('closedDirectory() finds the directory that this user may not pass', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'assay-closed-'))
  const closed = join(folder, 'a')
  const socket = join(closed, 'b', 'api.sock')
  const root = process.geteuid?.() === 0
  mkdirSync(join(closed, 'b'), { recursive: true })
  chmodSync(folder, 0o755)
  try {
    assert.equal(await closedDirectory(socket), undefined)
    assert.equal(await closedDirectory(join(folder, 'nix', 'api.sock')), undefined)
    chmodSync(closed, 0)
    // Root passes everything.
    if (!root) assert.equal(await closedDirectory(socket), closed)
  } finally {
    chmodSync(closed, 0o700)
    rmSync(folder, { recursive: true })
  }
})
