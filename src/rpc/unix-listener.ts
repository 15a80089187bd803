import { chmodSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { AssayError, messageOf } from '#base/errors.ts'
import { readPeerCredentials, readPeerGroups } from '#host/peer-credentials.ts'
import { closePidfd } from '#host/process.ts'
import { maxSocketPathBytes } from './endpoint.ts'
import type { Listener, ListenerLimits, ListenerOptions } from './listener.ts'

/** Where and how a Unix socket listens. */
export interface ListenUnixOptions extends ListenerLimits {
  readonly path: string
  /** Mode of the socket; connecting needs write permission. */
  readonly mode: number
  /** Mode of the folder, if it has to be made, whatever the umask. Default 0755, as of folders above it. */
  readonly directoryMode?: number
  /** A socket that is listening already, passed in by systemd. `path` then only names it, and `mode` is its. */
  readonly fd?: number
  /** Connections one user may have open at once. Root is not counted. Default 256. */
  readonly maxConnectionsPerUser?: number
  /** Whether peers come with their supplementary groups. Default false: most services need none. */
  readonly readGroups?: boolean
}

/** A Unix socket that is being served. */
export interface UnixListener {
  readonly path: string
}

/** Starts to listen. @throws AssayError as `RpcServer.listenUnix`. */
export async function listenUnix(
  options: ListenUnixOptions,
  listener: Listener,
  log: ListenerOptions['log'],
): Promise<UnixListener> {
  const { path, mode, directoryMode = 0o755, fd } = options
  const server = createServer()
  listener.attach(server)
  admitPeers(server, listener, {
    limit: options.maxConnectionsPerUser ?? 256,
    readGroups: options.readGroups === true,
    log,
  })
  if (fd !== undefined) {
    await listening(server, { fd })
    return { path }
  }
  checkPath(path)
  makeDirectory(dirname(path), directoryMode)
  await removeStaleSocket(path)
  await listening(server, { path })
  chmodSync(path, mode)
  return { path }
}

function admitPeers(
  server: Server,
  listener: Listener,
  options: {
    readonly limit: number
    readonly readGroups: boolean
    readonly log: ListenerOptions['log']
  },
): void {
  const { limit, readGroups, log } = options
  const perUser = new Map<number, number>()
  server.on('connection', (socket: Socket) => {
    try {
      // Now, before HTTP/2 takes the handle away.
      const { _handle: handle } = socket as Socket & { readonly _handle: { readonly fd: number } }
      const credentials = readPeerCredentials(handle.fd)
      const { uid, pidfd } = credentials
      const open = perUser.get(uid) ?? 0
      socket.once('close', () => {
        const left = (perUser.get(uid) ?? 1) - 1
        if (left === 0) perUser.delete(uid)
        else perUser.set(uid, left)
        if (pidfd !== undefined) closePidfd(pidfd)
      })
      perUser.set(uid, open + 1)
      if (uid !== 0 && open >= limit) {
        log.warn({ uid, limit }, 'a connection is refused: the user has too many open')
        socket.destroy()
        return
      }
      const groups = readGroups && { groups: readPeerGroups(handle.fd) }
      listener.admit(socket, { kind: 'unix', ...credentials, ...groups })
    } catch (error) {
      log.warn({ error }, 'a connection is closed: its peer could not be told')
      socket.destroy()
    }
  })
}

function checkPath(path: string): void {
  const length = new TextEncoder().encode(path).length
  if (path.startsWith('/') && length <= maxSocketPathBytes) return
  const why = path.startsWith('/')
    ? `it is ${length} bytes long, and a socket address holds ${maxSocketPathBytes}`
    : 'it is not absolute'
  throw new AssayError('failed-precondition', `cannot listen on the socket ${path}: ${why}`)
}

function makeDirectory(directory: string, mode: number): void {
  const first = mkdirSync(directory, { recursive: true, mode })
  if (first === undefined) return
  chmodSync(directory, mode)
  for (let made = directory; made !== first; ) {
    made = dirname(made)
    chmodSync(made, 0o755)
  }
}

/** Removes what a server that was killed left behind, and nothing else. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return
  if (!found.isSocket()) throw inUse(path, 'something that is not a socket has this name')
  if (await accepts(path)) throw inUse(path, 'another process is listening on it')
  unlinkSync(path)
}

function inUse(path: string, why: string): AssayError {
  return new AssayError('failed-precondition', `cannot listen on the socket ${path}: ${why}`, {
    reason: 'socket-in-use',
  })
}

/** Whether somebody listens. Only a refused connection proves that nobody does. */
function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  })
}

function listening(server: Server, where: { path: string } | { fd: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(notListening(where, error)))
    // The backlog holds workloads back, instead of turning them away, while they all start at once.
    server.listen({ ...where, backlog: 4096 }, resolve)
  })
}

function notListening(where: { path: string } | { fd: number }, cause: unknown): AssayError {
  const name = 'path' in where ? `socket ${where.path}` : `passed socket ${where.fd}`
  return new AssayError(
    'failed-precondition',
    `cannot listen on the ${name}: ${messageOf(cause)}`,
    {
      cause,
    },
  )
}
