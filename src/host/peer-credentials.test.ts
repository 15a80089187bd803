import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { readPeerCredentials, readPeerGroups } from './peer-credentials.ts'
import { closePidfd, isAlive, verifySameProcess } from './process.ts'

const folder = mkdtempSync(join(tmpdir(), 'assay-peer-'))
const path = join(folder, 's')

const fdOf = (socket: Socket): number =>
  (socket as unknown as { _handle: { fd: number } })._handle.fd

/** Connects in the process whose number it prints, and leaves the socket to another that lives on. */
const inherit = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print(os.getpid(), flush=True)
sys.stdin.readline()
if os.fork() == 0:
    os.setsid()
    sys.stdin.readline()`

/** Connects in two groups, leaves both, and then says so. */
const leaveGroups = `
import os, socket, sys
os.setgroups([7, 4242])
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
os.setgroups([])
print('left', flush=True)
sys.stdin.readline()`

describe('readPeerCredentials()', () => {
  let server: Server

  before(async () => {
    server = createServer()
    await new Promise<void>((resolve) => server.listen(path, resolve))
  })
  after(() => {
    server.close()
    rmSync(folder, { recursive: true })
  })

  it('names the process that connected, also when another goes on with its socket', async () => {
    const accepted = once(server, 'connection')
    const child = spawn('python3', ['-c', inherit, path], { stdio: ['pipe', 'pipe', 'inherit'] })
    const [socket] = (await accepted) as [Socket]
    const peer = readPeerCredentials(fdOf(socket))
    assert.deepEqual(
      [peer.pid, peer.uid, peer.gid],
      [child.pid, process.getuid?.(), process.getgid?.()],
    )
    verifySameProcess(peer)

    child.stdin.write('exit\n')
    await once(child, 'exit')
    assert.equal(isAlive(peer.pidfd ?? -1), false)
    assert.throws(() => verifySameProcess(peer), { reason: 'workload-gone' })
    assert.equal(socket.destroyed, false)

    // Whoever asks only now is told that there is nobody to vouch for.
    const late = readPeerCredentials(fdOf(socket))
    assert.equal(late.startTime, 0n)
    assert.equal(late.pidfd, undefined)
    assert.throws(() => verifySameProcess(late), { reason: 'workload-gone' })
    closePidfd(peer.pidfd ?? -1)
    child.stdin.end()
    socket.destroy()
  })

  it('knows the groups with which a process connected, whatever it did to them since', {
    skip: process.getuid?.() !== 0 && 'only root can change its groups',
  }, async () => {
    const accepted = once(server, 'connection')
    const child = spawn('python3', ['-c', leaveGroups, path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const [socket] = (await accepted) as [Socket]
    await once(child.stdout, 'data')
    assert.deepEqual(readPeerGroups(fdOf(socket)), [7, 4242])
    child.stdin.end()
    await once(child, 'exit')
    socket.destroy()
  })

  it('refuses what is not a socket', () => {
    assert.throws(() => readPeerCredentials(9999), { code: 'EBADF' })
    assert.throws(() => readPeerGroups(9999), { code: 'EBADF' })
  })
})
