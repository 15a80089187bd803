import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { stat, statfs } from 'node:fs/promises'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import process from 'node:process'
import { messageOf } from '#base/errors.ts'
import { closePidfd, openPidfd } from '#host/process.ts'
import { closedDirectory } from '../closed-directory.ts'
import { type Finding, problem, warning, well } from './finding.ts'

// Checks of the machine that both daemons need.

const mebibyte = 2 ** 20

/** Space and inodes where a daemon keeps its data. */
export async function diskFindings(directory: string): Promise<readonly Finding[]> {
  const place = nearestExisting(directory)
  const { bsize, bavail, blocks, ffree, files } = await statfs(place)
  const free = bavail * bsize
  const explained = {
    why: 'a full disk stops everything that has to be written: changes, rotation, attestation',
    remedy: `make room on the file system of ${place}: df -h ${place}; df -i ${place}`,
  }
  const text = `${Math.floor(free / mebibyte)} MiB free at ${place}`
  if (free < 16 * mebibyte) return [problem('disk', text, explained)]
  if (files > 0 && ffree < 100)
    return [problem('disk', `${ffree} inodes free at ${place}`, explained)]
  if (free < 256 * mebibyte && free < blocks * bsize * 0.05)
    return [warning('disk', text, explained)]
  return well('disk', text)
}

function nearestExisting(path: string): string {
  let place = path
  while (!existsSync(place) && place !== dirname(place)) place = dirname(place)
  return place
}

/** A directory that only its owner should enter, and files in it that only its owner should read. */
export async function privateFindings(
  check: string,
  directory: string,
  files: readonly string[],
): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  let owner: number
  try {
    const { uid, mode } = await stat(directory)
    owner = uid
    if ((mode & 0o022) !== 0) findings.push(openTo(check, directory, mode, 'go-w'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return well(check, `${directory} is not there yet: it is made at the first start`)
  }
  for (const file of files) {
    if (!existsSync(file)) continue
    const { uid, mode } = await stat(file)
    if ((mode & 0o077) !== 0) findings.push(openTo(check, file, mode, 'go-rwx'))
    if (uid === owner) continue
    findings.push(
      problem(check, `${file} belongs to user ${uid}, its directory to user ${owner}`, {
        why: 'the daemon cannot read or replace it, as after something was run by root',
        remedy: `chown --reference=${directory} ${file}`,
      }),
    )
  }
  return findings.length > 0 ? findings : well(check, `${directory} is its owner's alone`)
}

const openTo = (check: string, path: string, mode: number, change: string): Finding =>
  problem(check, `${path} has mode ${(mode & 0o777).toString(8).padStart(4, '0')}`, {
    why: 'other users can read or change what only the daemon should',
    remedy: `chmod ${change} ${path}`,
  })

/** What is at the path of a Unix socket. */
export type SocketState = 'answers' | 'absent' | 'stale' | 'forbidden'

/** Whether somebody listens at `path`, and findings where nobody can be reached. */
export async function socketFindings(
  check: string,
  path: string,
  unit: string,
): Promise<{ readonly state: SocketState; readonly findings: readonly Finding[] }> {
  const code = await connectCode(path)
  if (code === undefined) return { state: 'answers', findings: well(check, `${path} answers`) }
  if (code === 'ENOENT') {
    return {
      state: 'absent',
      findings: [
        problem(check, `there is no socket at ${path}`, {
          why: `${unit} does not run, or has another socket_path`,
          remedy: `systemctl start ${unit}; journalctl -u ${unit} says why it ended`,
        }),
      ],
    }
  }
  if (code === 'EACCES') {
    const closed = await closedDirectory(path)
    const explained =
      closed === undefined
        ? { why: 'this user may not open it', remedy: 'run assay doctor as root' }
        : {
            why: `the directory ${closed} is closed, and with it the socket to everybody else`,
            remedy: `chmod a+x ${closed}`,
          }
    return { state: 'forbidden', findings: [problem(check, `${path} cannot be opened`, explained)] }
  }
  return {
    state: 'stale',
    findings: [
      problem(check, `nobody listens at ${path} (${code})`, {
        why: `${unit} was killed and left its socket behind, or something else is there`,
        remedy: `systemctl restart ${unit}, which replaces the socket`,
      }),
    ],
  }
}

/** Undefined: it connects. */
function connectCode(path: string): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const socket = connect(path)
  socket.once('connect', () => {
    socket.destroy()
    resolve(undefined)
  })
  socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
  return promise
}

/** Whether something keeps the clock right. */
export async function clockFindings(): Promise<readonly Finding[]> {
  const said = await output('timedatectl', ['show', '--property=NTPSynchronized', '--value'])
  if (said === 'yes') return well('clock', 'the clock is kept right by NTP')
  const explained = {
    why: 'certificates are valid by the clock: what is signed by a wrong one is refused elsewhere',
    remedy: 'timedatectl set-ntp true, or install chrony; compare with date -u on the other side',
  }
  const what =
    said === undefined
      ? 'systemd does not say whether the clock is kept right'
      : 'no NTP keeps the clock right'
  return [warning('clock', what, explained)]
}

/** State of a systemd unit, where systemd runs and knows it. */
export async function unitFindings(unit: string): Promise<readonly Finding[]> {
  const said = await output('systemctl', [
    'show',
    unit,
    '--property=LoadState,ActiveState,SubState,Result,NRestarts,UnitFileState',
  ])
  const state = new Map(
    (said ?? '').split('\n').map((line) => line.split('=', 2) as [string, string]),
  )
  if (state.get('LoadState') !== 'loaded') return well('unit', `systemd has no unit ${unit} here`)
  const [active, result, restarts] = ['ActiveState', 'Result', 'NRestarts'].map(
    (name) => state.get(name) ?? '',
  )
  if (active !== 'active') {
    return [
      problem('unit', `${unit} is ${active} (${result})`, {
        why: 'nothing is served',
        remedy: `systemctl start ${unit}; journalctl -u ${unit} -n 50 says why it ended`,
      }),
    ]
  }
  if (state.get('UnitFileState') === 'disabled') {
    return [
      warning('unit', `${unit} runs, and will not at the next boot`, {
        why: 'it was started by hand, and not enabled',
        remedy: `systemctl enable ${unit}`,
      }),
    ]
  }
  if (Number(restarts) > 0) {
    return [
      warning('unit', `${unit} runs, and was restarted ${restarts} times`, {
        why: 'it ended by itself before',
        remedy: `journalctl -u ${unit} -p warning`,
      }),
    ]
  }
  return well('unit', `${unit} is active`)
}

/** What the kernel has to offer for telling processes apart. */
export async function kernelFindings(): Promise<readonly Finding[]> {
  try {
    closePidfd(openPidfd(process.pid))
    return well('kernel', 'processes can be held by pidfd')
  } catch (error) {
    return [
      problem('kernel', `no pidfd: ${messageOf(error)}`, {
        why: 'the agent cannot hold on to a process while it looks at it',
        remedy: 'Linux 5.3 or later; in a container, let its seccomp profile pass pidfd_open',
      }),
    ]
  }
}

/** What a program says on standard output; undefined when it is not there, fails or takes longer than 10 s or the limit. */
export function output(
  program: string,
  args: readonly string[],
  { limitSeconds = 10 }: { readonly limitSeconds?: number } = {},
): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  execFile(program, args, { timeout: limitSeconds * 1000 }, (error, stdout) =>
    resolve(error === null ? stdout.trim() : undefined),
  )
  return promise
}
