import { AssayError } from '#base/errors.ts'
import { type Connection, connectUnix } from '#rpc/client.ts'
import { parseEndpoint } from '#rpc/endpoint.ts'
import { type IdentityKind, WorkloadApi } from '#workload-client/workload-api.ts'
import { closedDirectory } from './closed-directory.ts'
import { type CommandContext, isOn, type Option, optional, seconds, UsageError } from './command.ts'

/** One of the sockets that commands talk to. */
interface Daemon {
  /** The program that listens there. */
  readonly program: string
  /** The option that names the socket. */
  readonly option: string
  /** The environment variable that names it when the option does not. */
  readonly variable: string
  readonly path: string
  /** Its socket is open to every user; only the way to it may be closed. */
  readonly isOpenToAll?: boolean
}

const server: Daemon = {
  program: 'assay-server',
  option: 'socket-path',
  variable: 'ASSAY_SERVER_SOCKET',
  path: '/run/assay/server.sock',
}

const agent: Daemon = {
  program: 'assay-agent',
  option: 'socket-path',
  variable: 'SPIFFE_ENDPOINT_SOCKET',
  path: '/run/assay/agent/api.sock',
  isOpenToAll: true,
}

const agentAdministration: Daemon = {
  program: 'assay-agent',
  option: 'admin-socket-path',
  variable: 'ASSAY_AGENT_ADMIN_SOCKET',
  path: '/run/assay/agent-admin/admin.sock',
}

const defaultTimeoutSeconds = 30
const maxTimeoutSeconds = 86_400

const timeoutOption: Option = {
  name: 'timeout',
  value: 'DURATION',
  summary: `how long to wait for an answer; ${defaultTimeoutSeconds}s when absent`,
}

const agentSocketOption: Option = {
  name: 'socket-path',
  value: 'PATH',
  summary: "the agent's Workload API socket",
}

/** Options of commands that talk to the server. */
export const serverOptions: readonly Option[] = [
  { name: 'socket-path', value: 'PATH', summary: "the server's administration socket" },
  timeoutOption,
]

/** Options of commands that talk to the Workload API. */
export const agentOptions: readonly Option[] = [agentSocketOption, timeoutOption]

/** Options of commands that follow the Workload API until they are interrupted. */
export const agentStreamOptions: readonly Option[] = [agentSocketOption]

/** Options of commands that talk to the agent's administration socket. */
export const agentAdministrationOptions: readonly Option[] = [
  { name: 'admin-socket-path', value: 'PATH', summary: "the agent's administration socket" },
  timeoutOption,
]

/** Options of commands that talk to the server or the agent's administration socket. */
export const administrationOptions: readonly Option[] = [
  ...new Set([...serverOptions, ...agentAdministrationOptions]),
]

/** The server's administration API. The caller disposes of the connection. */
export const connectServer = (context: CommandContext): Promise<Connection> =>
  connect(context, server)

/** The agent's administration API. The caller disposes of the connection. */
export const connectAgentAdministration = (context: CommandContext): Promise<Connection> =>
  connect(context, agentAdministration)

/** What the agent serves beside the Workload API on the same socket. The caller disposes of the connection. */
export const connectAgent = (context: CommandContext): Promise<Connection> =>
  connect(context, agent)

/** The Workload API. The caller disposes of it. */
export function connectWorkloadApi(context: CommandContext): Promise<WorkloadApi> {
  const api = new WorkloadApi(`unix://${socketPath(context, agent)}`, context.clock, {
    kind: kindOf(context),
  })
  startTimeout(context, agent, context.signal)
  return reached(context, agent, api)
}

/** The Workload API, with a time limit for connecting alone. The caller disposes of it. */
export function streamWorkloadApi(context: CommandContext): Promise<WorkloadApi> {
  const api = new WorkloadApi(`unix://${socketPath(context, agent)}`, context.clock, {
    kind: kindOf(context),
  })
  return reachedInTime(context, agent, api)
}

/** The server's administration API, with a time limit for connecting alone. The caller disposes of the connection. */
export function streamServer(context: CommandContext): Promise<Connection> {
  return reachedInTime(context, server, connectUnix(socketPath(context, server), context))
}

/** The server's administration API, of a server that may come later. Nothing connects yet. */
export const serverConnection = (context: CommandContext): Connection =>
  connectUnix(socketPath(context, server), { clock: context.clock, maxReconnectMs: 1000 })

/**
 * Connects now, and notes why when the server is not there.
 *
 * @throws AssayError `permission-denied` when this user may not open the socket: waiting would not help.
 */
export async function tryServer(context: CommandContext, connection: Connection): Promise<void> {
  try {
    await connection.connect({ signal: context.signal })
  } catch (thrown) {
    if (!(thrown instanceof AssayError)) throw thrown
    const error = await unreachable(context, server, thrown)
    if (error.code === 'permission-denied') throw error
    context.note(error.message)
  }
}

function connect(context: CommandContext, daemon: Daemon): Promise<Connection> {
  const connection = connectUnix(socketPath(context, daemon), context)
  startTimeout(context, daemon, context.signal)
  return reached(context, daemon, connection)
}

/** Of commands that ask for SVIDs. */
export const pqOption: Option = {
  name: 'pq',
  summary: 'post-quantum SVIDs (ML-DSA), of entries with the hint pq, and what verifies them',
}

const kindOf = (context: CommandContext): IdentityKind =>
  isOn(context, 'pq') ? 'post-quantum' : 'classical'

/** The Workload API of a configuration, which may leave it to the environment. Nothing connects yet. */
export function workloadApiAt(
  context: CommandContext,
  { address, kind }: { readonly address: string | undefined; readonly kind: IdentityKind },
): WorkloadApi {
  const { variable, path } = agent
  const text = address ?? context.environment[variable] ?? path
  return new WorkloadApi(text.startsWith('/') ? `unix://${text}` : text, context.clock, { kind })
}

function socketPath(context: CommandContext, { option, variable, path }: Daemon): string {
  const given = optional(context, option)
  const [text, from] =
    given === undefined
      ? [context.environment[variable] ?? path, variable]
      : [given, `option --${option}`]
  if (!/^(unix|tcp):/.test(text)) return text
  const endpoint = parseEndpoint(text)
  if (endpoint.kind === 'unix') return endpoint.path
  throw new UsageError(`${from} is '${text}': assay talks to daemons on Unix sockets only`)
}

/** Cancels the command unless `done` aborts in time; holds the process meanwhile, which grpc-js does not. */
function startTimeout(context: CommandContext, daemon: Daemon, done: AbortSignal): void {
  const limit = seconds(context, 'timeout', defaultTimeoutSeconds)
  if (limit < 1 || limit > maxTimeoutSeconds) {
    throw new UsageError(`option --timeout is ${limit} s: it must be from 1s to 24h`)
  }
  context.clock.sleep(Temporal.Duration.from({ seconds: limit }), done).then(
    () => context.cancel(tooLate(daemon, limit)),
    () => {
      // It was done in time.
    },
  )
}

/** {@link reached}, with a time limit that ends with it. */
async function reachedInTime<
  T extends Disposable & { connect(options: { readonly signal: AbortSignal }): Promise<void> },
>(context: CommandContext, daemon: Daemon, connection: T): Promise<T> {
  const connected = new AbortController()
  startTimeout(context, daemon, AbortSignal.any([context.signal, connected.signal]))
  try {
    return await reached(context, daemon, connection)
  } finally {
    connected.abort()
  }
}

/** Connects now: a daemon that is not there is told apart before anything is asked of it. */
async function reached<
  T extends Disposable & { connect(options: { readonly signal: AbortSignal }): Promise<void> },
>(context: CommandContext, daemon: Daemon, connection: T): Promise<T> {
  try {
    await connection.connect({ signal: context.signal })
    return connection
  } catch (error) {
    connection[Symbol.dispose]()
    throw error instanceof AssayError ? await unreachable(context, daemon, error) : error
  }
}

function tooLate({ program }: Daemon, limitSeconds: number): AssayError {
  return new AssayError(
    'unavailable',
    `${program} did not answer within ${limitSeconds} s; --timeout gives it longer`,
    { reason: 'deadline-exceeded' },
  )
}

async function unreachable(
  context: CommandContext,
  daemon: Daemon,
  cause: AssayError,
): Promise<AssayError> {
  const { program, option, variable, isOpenToAll } = daemon
  if (cause.reason !== 'not-connected') return cause
  const forbidden = /EACCES|EPERM/.test(cause.message)
  const closed =
    forbidden && isOpenToAll ? await closedDirectory(socketPath(context, daemon)) : undefined
  const remedy = forbidden
    ? closed === undefined
      ? `this user may not open it: use the user or a group that ${program} lets in`
      : `the socket is open to every user, but this one may not pass the directory ${closed}: chmod a+x ${closed}`
    : `is ${program} running? --${option} or ${variable} says where its socket is`
  return new AssayError(
    forbidden ? 'permission-denied' : 'unavailable',
    `${cause.message}\n${remedy}`,
    { reason: cause.reason, cause },
  )
}
