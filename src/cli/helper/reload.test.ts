import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chownSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { after, test } from 'node:test'
import { parseConfig } from '#config/parse-config.ts'
import { helperConfigSchema } from './config.ts'
import { type ReloadOutcome, reload } from './reload.ts'

const directory = mkdtempSync(join(tmpdir(), 'assay-reload-'))
after(() => rmSync(directory, { recursive: true }))
const at = (name: string): string => join(directory, name)

const run = (lines: string, signal = new AbortController().signal): Promise<ReloadOutcome> =>
  reload(
    parseConfig(helperConfigSchema, `cert_dir: x\nsvid_file_name: a\n${lines}`, { file: at('c') }),
    { signal, environment: { PATH: process.env['PATH'], NOTIFY_SOCKET: '/nix' } },
  )

/** A process that ends with status 7 when it gets SIGUSR1, and the file that names it. */
async function signalled(name: string) {
  const script = `process.on('SIGUSR1', () => process.exit(7)); setInterval(() => {}, 1e6); console.log(1)`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  writeFileSync(at(name), `${child.pid}\nmore\n`)
  return child
}

test('reload() signals the process of a pid file, and nobody when there is none', async () => {
  const lines = `pid_file_name: a.pid\nrenew_signal: SIGUSR1\n`
  assert.equal((await run(lines)).done, false)
  const child = await signalled('a.pid')
  const exited = once(child, 'exit')
  assert.deepEqual(await run(lines), {
    done: true,
    detail: `sent SIGUSR1 to process ${child.pid}`,
  })
  assert.deepEqual(await exited, [7, null])
  assert.match((await run(lines)).detail, /does not run/)
})

test('reload() does not signal a process that is younger than the file', async () => {
  const child = await signalled('old.pid')
  utimesSync(at('old.pid'), 1_000_000, 1_000_000)
  const outcome = await run('pid_file_name: old.pid\nrenew_signal: SIGUSR1\n')
  child.kill()
  assert.equal(outcome.done, false)
  assert.match(outcome.detail, /is younger than .*, and another/)
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGTERM'])
})

test('reload() does not signal for a file that belongs to a third user', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async () => {
  const child = await signalled('trap.pid')
  chownSync(at('trap.pid'), 65534, 65534)
  await assert.rejects(run('pid_file_name: trap.pid\nrenew_signal: SIGUSR1\n'), {
    reason: 'reload-failed',
    message: /belongs to user 65534, and process \d+ to user 0/,
  })
  child.kill()
})

test('reload() follows no link, which whoever owns the directory could put there', async () => {
  const child = await signalled('of-another.pid')
  symlinkSync(at('of-another.pid'), at('link.pid'))
  await assert.rejects(run('pid_file_name: link.pid\nrenew_signal: SIGUSR1\n'), {
    reason: 'reload-failed',
    message: /link\.pid: it is a symbolic link$/,
  })
  child.kill()
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGTERM'])
})

test('reload() reads a line, and neither waits for a FIFO nor reads a device to its end', async () => {
  spawnSync('mkfifo', [at('fifo.pid')])
  await assert.rejects(run('pid_file_name: fifo.pid\n'), /it is not a file$/)
  await assert.rejects(run('pid_file_name: /dev/zero\n'), /it is not a file$/)
  const child = await signalled('long.pid')
  appendFileSync(at('long.pid'), 'x'.repeat(1_000_000))
  const exited = once(child, 'exit')
  assert.equal((await run('pid_file_name: long.pid\nrenew_signal: SIGUSR1\n')).done, true)
  await exited
})

test('reload() refuses a pid file that names no process', async () => {
  for (const text of ['', '-1', '0', '1 2', '99999999999', 'x']) {
    writeFileSync(at('wrong.pid'), text)
    await assert.rejects(run('pid_file_name: wrong.pid\n'), /is not the number of a process/, text)
  }
  writeFileSync(at('wrong.pid'), String(process.pid))
  await assert.rejects(run('pid_file_name: wrong.pid\n'), /is this helper/)
})

test('reload() runs a command without a shell and without the way to systemd', async () => {
  const script = `require('node:fs').writeFileSync('${at('said')}', JSON.stringify([process.argv.slice(1), process.env.NOTIFY_SOCKET ?? null]))`
  const command = JSON.stringify([process.execPath, '-e', script, '$(id); a b'])
  assert.equal((await run(`reload_command: ${command}\n`)).done, true)
  assert.deepEqual(JSON.parse(readFileSync(at('said'), 'utf8')), [['$(id); a b'], null])
})

test('reload() says why a command failed', async () => {
  await assert.rejects(run('reload_command: [/bin/false]\n'), /by \/bin\/false: exit status 1$/)
  await assert.rejects(run('reload_command: [/nix]\n'), /by \/nix: .*ENOENT/)
  const stop = new AbortController()
  const ended = run('reload_command: [/bin/sleep, "60"]\n', stop.signal)
  stop.abort(new Error('enough'))
  await assert.rejects(ended, /enough/)
})
