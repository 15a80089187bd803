import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'node:test'
import { nobody, noOtherUser } from '../../test/support/another-user.ts'

const program = `
  import { SystemRandom } from '#base/random.ts'
  import { PinRefusals } from '#hsm/pin-refusals.ts'
  const [note, pinFile, version] = process.argv.slice(1)
  const refusals = new PinRefusals(note, new SystemRandom())
  const pin = { module: '/m.so', tokenLabel: 'assay', pinFile, pinIsCredential: false }
  if (version !== undefined) await refusals.keep({ ...pin, version }, 'it is wrong')
  console.log(await refusals.find(pin) ?? 'nothing')
  console.log(await refusals.find({ ...pin, tokenLabel: 'other' }) ?? 'nothing')`

test('PinRefusals goes by the note where the PIN is in a file that it may not look at', {
  skip: noOtherUser,
}, () => {
  const directory = mkdtempSync('/tmp/assay-pin-')
  try {
    chownSync(directory, nobody.uid, nobody.gid)
    const closed = join(directory, 'closed')
    mkdirSync(closed)
    const pinFile = join(closed, 'pin')
    writeFileSync(pinFile, 'pin')
    const run = (...args: readonly string[]) => {
      const command = ['--input-type=module', '--eval', program, join(directory, 'note'), ...args]
      const { stdout, stderr } = spawnSync(process.execPath, command, {
        ...nobody,
        encoding: 'utf8',
      })
      return stdout || stderr
    }
    assert.equal(run(pinFile, '1 2 3'), 'nothing\nnothing\n', 'it was written since')
    chmodSync(closed, 0o700)
    assert.equal(run(pinFile), 'it is wrong\nnothing\n')
  } finally {
    rmSync(directory, { recursive: true })
  }
})
