import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { parseNames } from '#host/name-service.ts'
import type { WorkloadProcess } from '../workload-attestor.ts'
import { Executables } from './executable.ts'
import { UnixWorkloadAttestor } from './unix.ts'

const never = new AbortController().signal
const uid = process.getuid?.() ?? 0
const gid = process.getgid?.() ?? 0
let folder = ''

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-unix-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

function workload(pid: number, assertSame: () => void = () => {}): WorkloadProcess {
  return { pid, uid, gid, assertSame }
}

function attestor(options: { discover?: boolean; inUse?: boolean; limit?: number } = {}) {
  return new UnixWorkloadAttestor({
    discoverWorkloadPath: options.discover ?? false,
    workloadSizeLimit: options.limit ?? 2 ** 29,
    trustForeignPaths: false,
    usesProgram: () => options.inUse ?? false,
    clock: new FakeClock(),
    log: silentLog,
  })
}

/** A copy of sleep(1) of our own, running. */
async function running(
  name: string,
  appended = '',
): Promise<{ path: string; child: ChildProcess } & AsyncDisposable> {
  const path = join(folder, name)
  copyFileSync('/bin/sleep', path)
  appendFileSync(path, appended)
  const child = spawn(path, ['60'], { stdio: 'ignore' })
  await once(child, 'spawn')
  return {
    path,
    child,
    async [Symbol.asyncDispose]() {
      const exited = once(child, 'exit')
      child.kill('SIGKILL')
      await exited
    },
  }
}

const sha256Of = (path: string): string =>
  createHash('sha256').update(readFileSync(path)).digest('hex')

test('UnixWorkloadAttestor.attest() tells user and groups by number and by name', async () => {
  const found = await attestor().attest(workload(process.pid), never)
  assert.ok(found.includes(`unix:uid:${uid}` as never))
  assert.ok(found.includes(`unix:gid:${gid}` as never))
  const name = parseNames(readFileSync('/etc/passwd', 'utf8')).get(uid)
  assert.ok(found.includes(`unix:user:${name}` as never))
  const groups = /\nGroups:(.*)\n/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? ''
  for (const group of groups.split(' ').filter((each) => each.trim() !== '')) {
    assert.ok(found.includes(`unix:supplementary_gid:${group}` as never))
  }
  assert.ok(!found.some((each) => each.startsWith('unix:path:')))
})

test('UnixWorkloadAttestor.attest() tells path and digest when asked to, or when an entry needs them', async () => {
  await using program = await running('program')
  const { pid = 0 } = program.child
  for (const options of [{ discover: true }, { inUse: true }]) {
    const found = await attestor(options).attest(workload(pid), never)
    assert.ok(found.includes(`unix:path:${program.path}` as never))
    assert.ok(found.includes(`unix:sha256:${sha256Of(program.path)}` as never))
  }
})

test('UnixWorkloadAttestor.attest() tells no path of a program that was deleted, and still its digest', async () => {
  await using program = await running('deleted')
  const digest = sha256Of(program.path)
  unlinkSync(program.path)
  const found = await attestor({ discover: true }).attest(workload(program.child.pid ?? 0), never)
  assert.ok(!found.some((each) => each.startsWith('unix:path:')))
  assert.ok(found.includes(`unix:sha256:${digest}` as never))
})

test('UnixWorkloadAttestor.attest() tells no path when another file has taken the name', async () => {
  await using program = await running('swapped')
  const digest = sha256Of(program.path)
  const impostor = join(folder, 'impostor')
  writeFileSync(impostor, 'not what runs')
  renameSync(impostor, program.path)
  const found = await attestor({ discover: true }).attest(workload(program.child.pid ?? 0), never)
  assert.ok(!found.some((each) => each.startsWith('unix:path:')))
  assert.ok(found.includes(`unix:sha256:${digest}` as never))
})

test('UnixWorkloadAttestor.attest() hashes no program above the limit', async () => {
  await using program = await running('large')
  const found = await attestor({ discover: true, limit: 100 }).attest(
    workload(program.child.pid ?? 0),
    never,
  )
  assert.ok(found.includes(`unix:path:${program.path}` as never))
  assert.ok(!found.some((each) => each.startsWith('unix:sha256:')))
})

test('UnixWorkloadAttestor.attest() refuses a process that has ended', async () => {
  const child = spawn('/bin/true')
  await once(child, 'exit')
  await assert.rejects(attestor().attest(workload(child.pid ?? 0), never), {
    code: 'permission-denied',
    reason: 'workload-gone',
  })
})

test('UnixWorkloadAttestor.attest() refuses a process that now runs as another user than connected', async () => {
  const other = { ...workload(process.pid), uid: uid + 1 }
  await assert.rejects(attestor().attest(other, never), {
    code: 'permission-denied',
    reason: 'workload-changed',
  })
})

test('UnixWorkloadAttestor.attest() gives out nothing read of a process that is no longer the same', async () => {
  const gone = new Error('another process now')
  const changed = workload(process.pid, () => {
    throw gone
  })
  await assert.rejects(attestor().attest(changed, never), gone)
})

test('Executables.inspect() reads each file once, and a changed one again', async () => {
  const executables = new Executables({
    maxBytes: 2 ** 29,
    trustForeignPaths: false,
    clock: new FakeClock(),
  })
  await using program = await running('content')
  const self = { pid: program.child.pid ?? 0, uid }
  const first = await executables.inspect(self, never)
  assert.equal((await executables.inspect(self, never)).sha256, first.sha256)
  unlinkSync(program.path)
  await using changed = await running('content', 'one more byte')
  const second = await executables.inspect({ pid: changed.child.pid ?? 0, uid }, never)
  assert.equal(second.path, first.path)
  assert.equal(second.sha256, sha256Of(changed.path))
  assert.notEqual(second.sha256, first.sha256)
})

test('Executables.inspect() sees a program that execs another', async () => {
  const executables = new Executables({
    maxBytes: 2 ** 29,
    trustForeignPaths: false,
    clock: new FakeClock(),
  })
  const child = spawn('/bin/sh', ['-c', 'read line; exec /bin/sleep 60'], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  await once(child, 'spawn')
  const self = { pid: child.pid ?? 0, uid }
  const before = await executables.inspect(self, never)
  child.stdin?.write('go\n')
  let now = before
  while (now.sha256 === before.sha256) {
    now = await executables.inspect(self, never).catch(() => before)
  }
  assert.notEqual(now.path, before.path)
  child.kill('SIGKILL')
  await once(child, 'exit')
})
