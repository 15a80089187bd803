import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, it } from 'node:test'

describe('forbidCoreDumps()', () => {
  it('sets both limits to zero', () => {
    const module = JSON.stringify(new URL('./core-dumps.ts', import.meta.url).href)
    const program = `
      import { forbidCoreDumps } from ${module}
      import { readFileSync } from 'node:fs'
      forbidCoreDumps()
      process.stdout.write(readFileSync('/proc/self/limits', 'utf8'))`
    const { stdout } = spawnSync(
      process.execPath,
      ['--input-type=module-typescript', '-e', program],
      {
        encoding: 'utf8',
      },
    )
    assert.match(stdout, /^Max core file size +0 +0 +bytes/m)
  })
})
