import type { Clock } from '#base/clock.ts'
import type { Random } from '#base/random.ts'
import { DiagnosisDefinition } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { HealthDefinition } from '#rpc/gen/grpc/health/v1/health.ts'
import { DebugDefinition } from '#rpc/gen/spire/api/agent/debug/v1/debug.ts'
import { LoggerDefinition } from '#rpc/gen/spire/api/agent/logger/v1/logger.ts'
import { loggerHandlers } from '#rpc/logger.ts'
import { addReflection } from '#rpc/reflection.ts'
import { RpcServer } from '#rpc/server.ts'
import type { ProcessLog } from '#telemetry/log.ts'
import type { AgentConfig } from '../config.ts'
import { agentHealth } from '../health.ts'
import { debugService } from './debug.ts'
import { type DiagnosisDependencies, diagnosisService } from './diagnosis.ts'

export interface AdministrationDependencies extends DiagnosisDependencies {
  /** Closes what is opened here. */
  readonly resources: AsyncDisposableStack
  /** Sockets that systemd opened: one named `admin` stands for `admin_socket_path`. */
  readonly activated: ReadonlyMap<string, readonly number[]>
  readonly clock: Clock
  readonly random: Random
  readonly log: ProcessLog
}

/** Serves operators, if the configuration names a socket for them. @throws AssayError `failed-precondition` */
export async function openAdministration(
  config: AgentConfig,
  dependencies: AdministrationDependencies,
): Promise<void> {
  const { admin_socket_path: path } = config
  if (path === undefined) return
  const { resources, clock, random, activated } = dependencies
  const log = dependencies.log.child({ component: 'admin-api' })
  const server = resources.use(new RpcServer({ log, random, clock }))
  const startedAtSeconds = Math.trunc(clock.now().epochMilliseconds / 1000)
  server.addService(DiagnosisDefinition, diagnosisService(dependencies))
  server.addService(DebugDefinition, debugService({ ...dependencies, startedAtSeconds }))
  server.addService(LoggerDefinition, loggerHandlers(dependencies.log))
  server.addService(HealthDefinition, agentHealth(dependencies))
  addReflection(server)
  const [fd] = activated.get('admin') ?? []
  await server.listenUnix({
    path,
    mode: 0o770,
    directoryMode: 0o750,
    ...(fd !== undefined && { fd }),
  })
  log.info({ socket: path }, 'administration is open')
}
