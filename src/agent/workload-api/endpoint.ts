import { LineLimit } from '#base/line-limit.ts'
import type { Random } from '#base/random.ts'
import { PostQuantumDefinition } from '#rpc/gen/assay/workload/v1/post_quantum.ts'
import { HealthDefinition } from '#rpc/gen/grpc/health/v1/health.ts'
import { SpiffeWorkloadAPIDefinition } from '#rpc/gen/spiffe/workload/workload.ts'
import { addReflection } from '#rpc/reflection.ts'
import { RpcServer } from '#rpc/server.ts'
import type { AgentConfig } from '../config.ts'
import { agentHealth } from '../health.ts'
import type { Identities } from '../manager/identities.ts'
import { measuring } from './measure.ts'
import { requireSecurityHeader } from './security-header.ts'
import { StartGrace } from './start-grace.ts'
import {
  classicalKind,
  postQuantumKind,
  WorkloadApi,
  type WorkloadApiOptions,
} from './workload-api.ts'

export interface WorkloadEndpointDependencies
  extends Pick<
    WorkloadApiOptions,
    'attestation' | 'refusals' | 'status' | 'metrics' | 'clock' | 'log'
  > {
  readonly identities: Identities
  /** Closes what is opened here. */
  readonly resources: AsyncDisposableStack
  /** Sockets that systemd opened: the first one named `workload-api` stands for `socket_path`. */
  readonly activated: ReadonlyMap<string, readonly number[]>
  readonly monotonicMs: () => number
  readonly random: Random
}

/** One user may have many workloads on a large node, and each has a connection or two. */
const maxConnectionsPerUser = 1024

/**
 * The longest request is a token to validate (16 KiB at most), and a client library keeps two or three streams. What is
 * not whole yet lies in the agent's memory, so that it is bounded for each user too, below. A call
 * that was cancelled counts until Node has cleared it away, some turns later: a client with 16 calls under way that
 * cancels each after its first message is turned away by a limit of 32.
 */
const bounds = { maxConcurrentStreams: 64, maxRequestBytes: 32 * 1024 }

/**
 * A client may take the first message of a stream and cancel the rest, at each call anew. It is a local process, and
 * calls cost the agent as much as cancelling them.
 */
const maxCancelsPerSecond = 50_000

/** Of all of a user's connections together: five hundred of the longest requests at once. */
const maxRequestBytesPerUser = 16 * 1024 * 1024

/** Lines about refused calls in ten seconds; a source is a user. */
const refusalBounds = { perSource: 20, total: 200 }

/** A TPM takes seconds to attest; a server that is away is not to hold everybody up. */
const startGrace = Temporal.Duration.from({ seconds: 10 })

/** Serves the Workload API, health and reflection. @throws AssayError `failed-precondition` */
export async function openWorkloadApi(
  config: AgentConfig,
  dependencies: WorkloadEndpointDependencies,
): Promise<void> {
  const { resources, identities, status, metrics, clock, random, activated } = dependencies
  const log = dependencies.log.child({ component: 'workload-api' })
  const server = resources.use(new RpcServer({ log, random, clock }))
  server.use(measuring(dependencies))
  server.use(requireSecurityHeader)
  const [fd] = activated.get('workload-api') ?? []
  const limit = fd === undefined ? undefined : startGrace
  const options = {
    ...dependencies,
    trustDomain: config.trust_domain,
    allowUnauthenticatedVerifiers: config.allow_unauthenticated_verifiers,
    allowedForeignJwtClaims: config.allowed_foreign_jwt_claims,
    logSelectors: config.log_selectors,
    grace: resources.use(new StartGrace({ identities, status, clock, limit })),
    refusalLines: resources.use(
      new LineLimit({
        clock,
        bounds: refusalBounds,
        onLeftOut: (leftOut) => {
          log.warn({ ...leftOut }, 'more calls of the Workload API were refused than have a line')
          metrics.linesLeftOut('workloads', leftOut.lines)
        },
      }),
    ),
    log,
  }
  server.addService(
    SpiffeWorkloadAPIDefinition,
    new WorkloadApi({ ...options, kind: classicalKind }),
  )
  server.addService(
    PostQuantumDefinition,
    new WorkloadApi({ ...options, identities: identities.pq, kind: postQuantumKind }),
  )
  server.addService(HealthDefinition, agentHealth({ identities, clock }))
  metrics.beforeReading(() => metrics.connections('workload-api', server.connections))
  addReflection(server)
  for (const [i, path] of [config.socket_path, ...config.socket_aliases].entries()) {
    await server.listenUnix({
      path,
      mode: 0o777,
      directoryMode: 0o755,
      maxConnectionsPerUser,
      maxCancelsPerSecond,
      ...bounds,
      perPeer: { maxRequestBytes: maxRequestBytesPerUser },
      onExcess: (excess) => metrics.rpcExcess(excess),
      ...(i === 0 && fd !== undefined && { fd }),
    })
    log.info({ socket: path }, 'the Workload API is open')
  }
}
