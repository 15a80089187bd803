import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { createNotifier } from './notify.ts'

/** Stands for systemd: prints what it is sent, one JSON string a line. */
const manager = `
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1] if sys.argv[1][0] != '@' else '\\0' + sys.argv[1][1:])
print('bound', flush=True)
while True:
    print(json.dumps(s.recv(8192).decode()), flush=True)`

const fail = (error: unknown): never => {
  throw error
}

async function withManager(socket: string, run: (next: () => Promise<string>) => Promise<void>) {
  const child = spawn('python3', ['-c', manager, socket], { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = child.stdout.setEncoding('utf8')[Symbol.asyncIterator]()
  let buffer = ''
  const line = async (): Promise<string> => {
    while (!buffer.includes('\n')) buffer += (await lines.next()).value
    const end = buffer.indexOf('\n')
    const first = buffer.slice(0, end)
    buffer = buffer.slice(end + 1)
    return first
  }
  try {
    assert.equal(await line(), 'bound')
    await run(async () => JSON.parse(await line()) as string)
  } finally {
    child.kill()
    await once(child, 'exit')
  }
}

describe('createNotifier()', () => {
  it('sends each state in a datagram of its own', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'assay-notify-'))
    const socket = join(folder, 'notify')
    await withManager(socket, async (next) => {
      const notifier = createNotifier({
        environment: { NOTIFY_SOCKET: socket },
        pid: 1,
        onError: fail,
      })
      notifier.ready()
      assert.equal(await next(), 'READY=1')
      notifier.status('attested\nREADY=1')
      assert.equal(await next(), 'STATUS=attested READY=1')
      notifier.reloading()
      assert.match(await next(), /^RELOADING=1\nMONOTONIC_USEC=\d+$/)
      notifier.watchdog()
      assert.equal(await next(), 'WATCHDOG=1')
      notifier.stopping()
      assert.equal(await next(), 'STOPPING=1')
    })
    rmSync(folder, { recursive: true })
  })

  it('reaches a socket in the abstract namespace', async () => {
    const socket = `@assay-notify-test-${process.pid}`
    await withManager(socket, async (next) => {
      createNotifier({ environment: { NOTIFY_SOCKET: socket }, pid: 1, onError: fail }).ready()
      assert.equal(await next(), 'READY=1')
    })
  })

  it('does nothing when systemd did not ask', () => {
    createNotifier({ environment: {}, pid: 1, onError: fail }).ready()
  })

  it('reports a socket that is not there, and goes on', () => {
    const errors: unknown[] = []
    const onError = (error: unknown): number => errors.push(error)
    createNotifier({ environment: { NOTIFY_SOCKET: '/nonexistent' }, pid: 1, onError }).ready()
    createNotifier({
      environment: { NOTIFY_SOCKET: `/${'x'.repeat(200)}` },
      pid: 1,
      onError,
    }).ready()
    assert.equal((errors[0] as NodeJS.ErrnoException).code, 'ENOENT')
    assert.ok(errors[1] instanceof RangeError)
  })

  for (const [environment, interval] of [
    [{}, undefined],
    [{ WATCHDOG_USEC: '30000000' }, 15_000],
    [{ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '7' }, 15_000],
    [{ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '8' }, undefined],
    [{ WATCHDOG_USEC: '0' }, undefined],
    [{ WATCHDOG_USEC: 'x' }, undefined],
  ] as const) {
    it(`pings every ${interval} ms for ${JSON.stringify(environment)}`, () => {
      assert.equal(
        createNotifier({ environment, pid: 7, onError: fail }).watchdogIntervalMs,
        interval,
      )
    })
  }
})
