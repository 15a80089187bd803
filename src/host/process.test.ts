import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, describe, it } from 'node:test'
import {
  closePidfd,
  isAlive,
  openPidfd,
  type ProcessIdentity,
  readStartTime,
  verifySameProcess,
} from './process.ts'

async function ended(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL')
  await once(child, 'exit')
}

function identify(pid: number): ProcessIdentity {
  return { pid, startTime: readStartTime(pid), pidfd: openPidfd(pid) }
}

describe('verifySameProcess()', () => {
  let child: ChildProcess
  let identity: ProcessIdentity

  before(() => {
    child = spawn('sleep', ['60'])
    identity = identify(child.pid ?? 0)
  })
  after(() => closePidfd(identity.pidfd ?? -1))

  it('accepts a process that is still there, with and without a pidfd', () => {
    verifySameProcess(identity)
    verifySameProcess({ ...identity, pidfd: undefined })
  })

  for (const [what, change] of [
    ['whose number has another start time', { startTime: 1n }],
    ['whose start time was not read', { startTime: 0n }],
    ['out of sight', { pid: 0 }],
  ] as const) {
    it(`refuses a process ${what}`, () => {
      assert.throws(() => verifySameProcess({ ...identity, ...change }), {
        code: 'permission-denied',
        reason: 'workload-gone',
      })
    })
  }

  it('refuses a process that has ended, though another has its number and even its start time', async () => {
    const other = spawn('sleep', ['60'])
    const gone = identify(other.pid ?? 0)
    await ended(other)
    assert.equal(isAlive(gone.pidfd ?? -1), false)
    assert.throws(() => verifySameProcess(gone), { reason: 'workload-gone' })
    assert.throws(() => verifySameProcess({ ...gone, pidfd: undefined }), {
      reason: 'workload-gone',
    })
    assert.throws(() => verifySameProcess({ ...identity, pidfd: gone.pidfd }), {
      reason: 'workload-gone',
    })
    closePidfd(gone.pidfd ?? -1)
    await ended(child)
  })
})

describe('readStartTime()', () => {
  it('reads past a name with spaces and parentheses', async () => {
    const child = spawn('python3', [
      '-c',
      `open('/proc/self/comm', 'w').write('a) R 1 1'); print(flush=True); input()`,
    ])
    await once(child.stdout, 'data')
    const own = readStartTime(process.pid)
    const its = readStartTime(child.pid ?? 0)
    assert.ok(its >= own, `${its} is before ${own}`)
    await ended(child)
  })

  it('says of a process that is not there that it is not', () => {
    assert.throws(() => readStartTime(2 ** 22 + 1), { code: 'ENOENT' })
    assert.throws(() => openPidfd(2 ** 22 + 1), { code: /ESRCH|EINVAL/ })
  })
})

describe('isAlive()', () => {
  it('refuses a descriptor that is not open', () => {
    assert.throws(() => isAlive(9999), { code: 'EBADF' })
    assert.throws(() => isAlive('x' as never), TypeError)
  })
})
