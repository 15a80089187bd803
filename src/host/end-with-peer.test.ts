import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import process from 'node:process'
import { test } from 'node:test'

test('endWithPeer() ends a process that hangs after its peer has gone, and not before', async () => {
  const module = JSON.stringify(new URL('./end-with-peer.ts', import.meta.url).href)
  const hanging = `
    import { writeSync } from 'node:fs'
    import { endWithPeer } from ${module}
    endWithPeer(3, 50)
    writeSync(3, 'hanging')
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)`
  const options = ['--input-type=module', '--eval', hanging]
  const child = spawn(process.execPath, options, {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  })
  const peer = child.stdio[3] as Socket
  await once(peer, 'data')
  assert.equal(child.exitCode ?? child.signalCode, null)
  peer.destroy()
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'])
})
