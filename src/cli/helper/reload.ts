import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { open, readFile, stat } from 'node:fs/promises'
import process from 'node:process'
import { AssayError, messageOf } from '#base/errors.ts'
import { readStartTime } from '#host/process.ts'
import type { HelperConfig } from './config.ts'

/** How long a command may take. */
const maxCommandMs = 60_000
/** What is read of a pid file: its first line is all that counts. */
const maxPidFileBytes = 4096
/** A file is written after its process has started; clocks of files and processes are not the same. */
const startToleranceSeconds = 2

/** What became of a reload, for a line of the log. */
export type ReloadOutcome = { readonly done: boolean; readonly detail: string }

/** What a reload is given. */
export interface ReloadOptions {
  readonly signal: AbortSignal
  readonly environment: Readonly<Record<string, string | undefined>>
}

/**
 * Tells the program that its files have changed, as the configuration says.
 *
 * @returns `done: false` when there is nobody to tell: the program does not run, and reads the files when it starts.
 * @throws AssayError `failed-precondition` when it could not be told.
 */
export async function reload(config: HelperConfig, options: ReloadOptions): Promise<ReloadOutcome> {
  if (config.pid_file_name !== undefined) {
    return signalProcess(config.pid_file_name, config.renew_signal)
  }
  if (config.reload_unit !== undefined) {
    const args = ['--no-ask-password', 'try-reload-or-restart', '--', config.reload_unit]
    await runCommand('/usr/bin/systemctl', args, options)
    return { done: true, detail: `reloaded ${config.reload_unit}` }
  }
  const [program, ...args] = config.reload_command ?? []
  if (program === undefined) return { done: false, detail: 'nobody is to be told' }
  await runCommand(program, args, options)
  return { done: true, detail: `ran ${program}` }
}

/**
 * Signals the process that a file names. One that started after the file was written is another that was given its
 * number, and one of another user than the file's owner is somebody's trap.
 */
async function signalProcess(file: string, signal: NodeJS.Signals): Promise<ReloadOutcome> {
  const written = await readPidFile(file)
  if (written === undefined) {
    return { done: false, detail: `${file} is not there: its program does not run` }
  }
  const { text } = written
  const [, number] = /^\s*([1-9]\d{0,9})\s*(\n|$)/.exec(text) ?? []
  if (number === undefined) throw failed(file, 'its first line is not the number of a process')
  const pid = Number(number)
  if (pid === process.pid) throw failed(file, `process ${pid} is this helper`)
  let startedSeconds: number
  let uid: number
  try {
    startedSeconds = await startSeconds(pid)
    uid = (await stat(`/proc/${pid}`)).uid
  } catch {
    return { done: false, detail: `process ${pid} of ${file} does not run` }
  }
  if (startedSeconds > written.mtimeMs / 1000 + startToleranceSeconds) {
    return { done: false, detail: `process ${pid} is younger than ${file}, and another` }
  }
  if (![0, process.geteuid?.(), uid].includes(written.uid)) {
    throw failed(file, `it belongs to user ${written.uid}, and process ${pid} to user ${uid}`)
  }
  try {
    process.kill(pid, signal)
  } catch (cause) {
    throw failed(file, `process ${pid}: ${messageOf(cause)}`, cause)
  }
  return { done: true, detail: `sent ${signal} to process ${pid}` }
}

/** A file as it was when it was read. */
interface PidFile {
  readonly text: string
  readonly uid: number
  readonly mtimeMs: number
}

/**
 * No link at its end is followed: who owns the directory could have it lead to a file that somebody else, whom the helper
 * trusts, wrote for another process.
 *
 * @returns undefined when it is not there.
 */
async function readPidFile(file: string): Promise<PidFile | undefined> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  try {
    // Not blocking: a FIFO of that name must not hang the helper.
    await using handle = await open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    const stats = await handle.stat()
    const { uid, mtimeMs } = stats
    if (!stats.isFile()) throw new Error('it is not a file')
    const { buffer, bytesRead } = await handle.read(new Uint8Array(maxPidFileBytes))
    return { text: new TextDecoder().decode(buffer.subarray(0, bytesRead)), uid, mtimeMs }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw failed(file, code === 'ELOOP' ? 'it is a symbolic link' : messageOf(cause), cause)
  }
}

/** Unix time at which a process started. */
async function startSeconds(pid: number): Promise<number> {
  const [, booted] = /^btime (\d+)$/m.exec(await readFile('/proc/stat', 'utf8')) ?? []
  // USER_HZ, which is 100 on every architecture of Linux that Node runs on.
  return Number(booted) + Number(readStartTime(pid)) / 100
}

const failed = (file: string, why: string, cause?: unknown): AssayError =>
  new AssayError('failed-precondition', `cannot signal the process of ${file}: ${why}`, {
    reason: 'reload-failed',
    cause,
  })

/** What the command says goes where the helper's own messages go. */
async function runCommand(
  program: string,
  args: readonly string[],
  { signal, environment }: ReloadOptions,
): Promise<void> {
  // It must not speak to systemd in the helper's name.
  const { NOTIFY_SOCKET: _, ...env } = environment
  const ended = Promise.withResolvers<string | undefined>()
  const child = spawn(program, args, {
    cwd: '/',
    env,
    shell: false,
    stdio: ['ignore', process.stderr, process.stderr],
    signal: AbortSignal.any([signal, AbortSignal.timeout(maxCommandMs)]),
    killSignal: 'SIGKILL',
  })
  child.once('error', (error) => ended.resolve(messageOf(error)))
  child.once('exit', (status, by) =>
    ended.resolve(status === 0 ? undefined : by === null ? `exit status ${status}` : `${by}`),
  )
  const why = await ended.promise
  signal.throwIfAborted()
  if (why === undefined) return
  throw new AssayError(
    'failed-precondition',
    `cannot reload by ${[program, ...args].join(' ')}: ${why}`,
    { reason: 'reload-failed' },
  )
}
