import { spawn } from 'node:child_process'
import { connect, type Socket } from 'node:net'
import type { Readable } from 'node:stream'

/** How a signer is come by: this process starts one, or it is a service of its own that waits at a Unix socket. */
export type SignerStart = SpawnedSigner | SignerService

/** A program that speaks the signer's protocol on descriptor 3. */
export interface SpawnedSigner {
  /** Program and arguments. */
  readonly command: readonly string[]
  /** All of its environment. */
  readonly environment: Readonly<Record<string, string>>
}

/** Each connection there is a signer of its own (`packaging/systemd/assay-signer.socket`). */
export interface SignerService {
  readonly socketPath: string
}

/** How one life of a signer ended. */
export interface SignerEnd {
  readonly why: string
  /** Another try will end the same. */
  readonly needsOperator: boolean
}

/** One signer, and what carries its frames. */
export interface SignerLink {
  readonly socket: Socket
  /** Undefined when it could not be started, or is another's child. */
  readonly pid: number | undefined
  /** What it or its module prints, where that is not its own service's to keep. */
  readonly printed: readonly Readable[]
  /** Resolves once it is gone; of a service, once nothing is heard of it any more. */
  readonly ended: Promise<SignerEnd>
  /** Ends it at once; a service ends itself when it is left. */
  kill(): void
}

/** A new signer. Whether there is one shows by {@link SignerLink.ended}. */
export function startSigner(start: SignerStart, poolThreads: number): SignerLink {
  return 'socketPath' in start ? connectSigner(start) : spawnSigner(start, poolThreads)
}

function spawnSigner({ command, environment }: SpawnedSigner, poolThreads: number): SignerLink {
  const [program = '', ...args] = command
  const child = spawn(program, args, {
    env: { ...environment, UV_THREADPOOL_SIZE: String(poolThreads) },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  const { promise: ended, resolve } = Promise.withResolvers<SignerEnd>()
  child.on('error', ({ message }) =>
    resolve({ why: `cannot start ${program}: ${message}`, needsOperator: true }),
  )
  child.on('exit', (code, signal) =>
    resolve({ why: `the signer ended with ${signal ?? `status ${code}`}`, needsOperator: false }),
  )
  return {
    socket: child.stdio[3] as Socket,
    pid: child.pid,
    printed: [child.stdout, child.stderr].filter((stream) => stream !== null),
    ended,
    kill: () => void child.kill('SIGKILL'),
  }
}

function connectSigner({ socketPath }: SignerService): SignerLink {
  const socket = connect(socketPath)
  const { promise: ended, resolve } = Promise.withResolvers<SignerEnd>()
  let isConnected = false
  let why = `the signer at ${socketPath} ended: journalctl -u 'assay-signer@*' says why`
  socket.once('error', ({ message }) => {
    // One that dies with something unread resets the connection, which says nothing.
    if (!isConnected) {
      why = `cannot reach the signer: ${message}; see systemctl status assay-signer.socket`
    }
  })
  socket.once('connect', () => {
    isConnected = true
  })
  socket.once('close', () => resolve({ why, needsOperator: false }))
  return { socket, pid: undefined, printed: [], ended, kill: () => void socket.destroy() }
}
