import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../../src/base/clock.ts'
import { type Log, silentLog } from '../../src/base/log.ts'
import { SystemRandom } from '../../src/base/random.ts'
import { Encoded } from '../../src/rpc/call.ts'
import { type Connection, type ConnectionOptions, connectUnix } from '../../src/rpc/client.ts'
import { HealthDefinition } from '../../src/rpc/gen/grpc/health/v1/health.ts'
import { SpiffeWorkloadAPIDefinition } from '../../src/rpc/gen/spiffe/workload/workload.ts'
import {
  AgentDefinition,
  RenewAgentResponse,
} from '../../src/rpc/gen/spire/api/server/agent/v1/agent.ts'
import { RpcServer } from '../../src/rpc/server.ts'
import type { Handlers } from '../../src/rpc/service.ts'

// A server and a client of it on a Unix socket, with services of the product whose handlers a test chooses.

/** One log record. */
export interface Logged {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly fields: Readonly<Record<string, unknown>>
  readonly message: string
}

/** A log that keeps what it is told. */
export function keepingLog(records: Logged[]): Log {
  const at =
    (level: Logged['level']) =>
    (fields: Readonly<Record<string, unknown>>, message: string): void => {
      records.push({ level, fields, message })
    }
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: () => keepingLog(records),
  }
}

export const clock = new SystemClock()
export const random = new SystemRandom()

export function newServer(log: Log = silentLog): RpcServer {
  return new RpcServer({ log, random, clock })
}

/** A folder of its own below the temporary one, removed when disposed of. */
export function temporaryFolder(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'assay-rpc-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** `renewAgent` answers with the bytes it was sent; `attestAgent` with each challenge response as a challenge. */
export const echo: Handlers<AgentDefinition> = {
  async renewAgent({ params }) {
    const svid = {
      certChain: [params?.csr ?? new Uint8Array()],
      id: undefined,
      expiresAt: 0,
      hint: '',
    }
    return new Encoded(RenewAgentResponse.encode({ svid }).finish())
  },
  async *attestAgent(requests) {
    for await (const { step } of requests) {
      if (step?.$case !== 'challengeResponse') continue
      yield { step: { $case: 'challenge', value: step.value } }
    }
  },
}

export interface Served extends AsyncDisposable {
  readonly server: RpcServer
  readonly path: string
  readonly connection: Connection
  connect(options?: Partial<ConnectionOptions>): Connection
}

export interface Services {
  readonly agent?: Handlers<AgentDefinition>
  readonly health?: Handlers<HealthDefinition>
  readonly workload?: Handlers<SpiffeWorkloadAPIDefinition>
}

/** Serves on a fresh socket. `prepare` runs before it listens. */
export async function serve(
  services: Services,
  prepare: (server: RpcServer) => void = () => {},
): Promise<Served> {
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(temporaryFolder())
  const path = join(folder.path, 'test.sock')
  const server = stack.use(newServer())
  if (services.agent) server.addService(AgentDefinition, services.agent)
  if (services.health) server.addService(HealthDefinition, services.health)
  if (services.workload) server.addService(SpiffeWorkloadAPIDefinition, services.workload)
  prepare(server)
  await server.listenUnix({ path, mode: 0o777 })
  const connection = stack.use(connectUnix(path, { clock }))
  const owned = stack.move()
  return {
    server,
    path,
    connection,
    connect: (options = {}) => owned.use(connectUnix(path, { clock, ...options })),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

/** Resolves when `condition` holds; looks at every turn of the event loop. */
export async function until(
  condition: () => boolean,
  signal = AbortSignal.timeout(5000),
): Promise<void> {
  while (!condition()) {
    signal.throwIfAborted()
    await clock.sleep(Temporal.Duration.from({ milliseconds: 2 }), signal)
  }
}
