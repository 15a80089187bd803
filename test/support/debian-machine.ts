import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'

// A Debian 12 of its own: a root directory made by mmdebstrap, booted with its systemd in a container that has no
// network but its own loopback.

const run = promisify(execFile)
const tools = ['mmdebstrap', 'systemd-nspawn', 'nsenter', 'lintian', 'apparmor_parser'] as const

/** Why there can be no such machine here; false when there can. */
export async function noMachine(): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'only root can boot a container'
  for (const tool of tools) {
    const places = ['/usr/bin', '/usr/sbin', '/sbin', '/bin'].map((place) => join(place, tool))
    const found = await Promise.any(places.map((path) => access(path))).then(
      () => true,
      () => false,
    )
    if (!found) return `${tool} is missing; run scripts/install check`
  }
  return false
}

/** IFF_UP (netdevice(7)). */
const isUp = 1

/** What a command printed, and how it ended. */
export interface Result {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** How a machine is booted. */
export interface BootOptions {
  /** Host directories that are seen inside: `HOST:INSIDE`. */
  readonly binds?: readonly string[]
  /** A root that cannot be written, with an empty /var in memory: as a diskless node has it. */
  readonly diskless?: boolean
  /** Another machine whose network it has: loopback reaches both. Default: one of its own. */
  readonly networkOf?: DebianMachine
}

/** Makes a root directory with `packages` and their dependencies in it. */
export async function makeRoot(packages: readonly string[]): Promise<string> {
  const directory = await mkdtemp('/var/tmp/assay-machine-')
  const root = join(directory, 'root')
  const include = ['systemd', 'systemd-sysv', 'dbus', ...packages].join(',')
  await run('mmdebstrap', [
    '--quiet',
    '--variant=minbase',
    `--include=${include}`,
    'bookworm',
    root,
  ])
  await writeFile(join(root, 'etc/hosts'), '127.0.0.1 localhost\n::1 localhost\n')
  await writeFile(join(root, 'etc/hostname'), 'assay-test\n')
  // Which the first boot would otherwise write.
  await run('systemd-machine-id-setup', [`--root=${root}`])
  return root
}

/** Removes what {@link makeRoot} made. */
export async function removeRoot(root: string): Promise<void> {
  await rm(join(root, '..'), { recursive: true, force: true })
}

/** A running machine. Disposing of it switches it off. */
export class DebianMachine implements AsyncDisposable {
  readonly root: string
  readonly #container: ChildProcess
  readonly leader: string

  private constructor(root: string, container: ChildProcess, leader: string) {
    this.root = root
    this.#container = container
    this.leader = leader
  }

  /** @throws Error with what nspawn said when its systemd does not come up. */
  static async boot(root: string, { binds = [], diskless = false, networkOf }: BootOptions = {}) {
    const container = spawn(
      'systemd-nspawn',
      [
        '--quiet',
        '--boot',
        `--directory=${root}`,
        `--machine=${basename(root)}-${process.pid}`,
        '--register=no',
        '--keep-unit',
        '--console=read-only',
        '--resolv-conf=off',
        networkOf === undefined
          ? '--private-network'
          : `--network-namespace-path=/proc/${networkOf.leader}/ns/net`,
        ...(diskless ? ['--read-only', '--volatile=state'] : []),
        ...binds.map((bind) => `--bind=${bind}`),
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
    let said = ''
    for (const stream of [container.stdout, container.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-4000)
      })
    const end = (): void => void container.kill('SIGKILL')
    process.once('exit', end)
    container.once('exit', () => process.removeListener('exit', end))
    try {
      const leader = await leaderOf(container)
      const machine = new DebianMachine(root, container, leader)
      await machine.until(['systemctl', 'is-system-running'], ({ stdout }) =>
        /running|degraded/.test(stdout),
      )
      const loopback = await machine.run(['cat', '/sys/class/net/lo/flags'])
      if ((Number(loopback) & isUp) === 0)
        throw new Error('its loopback is down, as where there is no CAP_NET_ADMIN to give')
      return machine
    } catch (error) {
      await halt(container)
      throw new Error(`no container can be booted here: ${(error as Error).message}\n${said}`, {
        cause: error,
      })
    }
  }

  /** Runs a command as root, or as `user`; resolves however it ends. */
  async try(
    command: readonly string[],
    { user, input }: { readonly user?: string; readonly input?: string } = {},
  ): Promise<Result> {
    const child = this.spawn(command, user)
    let stdout = ''
    let stderr = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input ?? '')
    const [status] = (await once(child, 'close')) as [number | null]
    return { status: status ?? 1, stdout, stderr }
  }

  /** Runs a command that must succeed. @returns what it printed, without the last line end. */
  async run(
    command: readonly string[],
    options: { readonly user?: string; readonly input?: string } = {},
  ): Promise<string> {
    const { status, stdout, stderr } = await this.try(command, options)
    if (status !== 0)
      throw new Error(`${command.join(' ')} ended with ${status}:\n${stdout}\n${stderr}`)
    return stdout.trimEnd()
  }

  /** Runs shell text that must succeed. */
  sh(text: string): Promise<string> {
    return this.run(['sh', '-ec', text])
  }

  /** Runs a command again and again until `done`. @throws Error after 60 s, with what it printed last. */
  async until(
    command: readonly string[],
    done: (result: Result) => boolean,
    options: { readonly user?: string } = {},
  ): Promise<string> {
    const end = performance.now() + 60_000
    for (;;) {
      const result = await this.try(command, options)
      if (done(result)) return result.stdout.trimEnd()
      if (performance.now() > end)
        throw new Error(`${command.join(' ')} still says: ${result.stdout}${result.stderr}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }

  /** A property of a unit, as `systemctl show` has it. */
  property(unit: string, name: string): Promise<string> {
    return this.run(['systemctl', 'show', '--value', `--property=${name}`, unit])
  }

  /** Waits for a property of a unit. */
  propertyBecomes(unit: string, name: string, expected: RegExp): Promise<string> {
    return this.until(['systemctl', 'show', '--value', `--property=${name}`, unit], ({ stdout }) =>
      expected.test(stdout),
    )
  }

  spawn(command: readonly string[], user?: string): ChildProcess {
    const become =
      user === undefined ? [] : ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--init-groups']
    return spawn(
      'nsenter',
      [
        ...['--target', this.leader],
        ...['--mount', '--uts', '--ipc', '--net', '--pid', '--cgroup', '--root'],
        ...[
          'env',
          '-i',
          '-C',
          '/',
          'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
          'HOME=/root',
          'LC_ALL=C.UTF-8',
        ],
        'DEBIAN_FRONTEND=noninteractive',
        ...become,
        ...command,
      ],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    )
  }

  read(path: string): Promise<string> {
    return readFile(join(this.root, path), 'utf8')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await halt(this.#container)
  }
}

/** The container's first process, once it is the container's systemd. */
async function leaderOf(container: ChildProcess): Promise<string> {
  const end = performance.now() + 30_000
  while (container.exitCode === null && performance.now() < end) {
    const children = await readFile(
      `/proc/${container.pid}/task/${container.pid}/children`,
      'utf8',
    ).catch(() => '')
    for (const pid of children.trim().split(' ')) {
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')
      if (name.trim() === 'systemd') return pid
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error(
    container.exitCode === null
      ? 'its systemd does not start'
      : `systemd-nspawn ended with ${container.exitCode}`,
  )
}

/** SIGTERM asks the container's systemd to switch off; what does not end then is ended. */
async function halt(container: ChildProcess): Promise<void> {
  if (container.exitCode !== null || container.signalCode !== null) return
  const ended = once(container, 'exit')
  container.kill('SIGTERM')
  const guard = setTimeout(() => container.kill('SIGKILL'), 20_000)
  await ended
  clearTimeout(guard)
}
