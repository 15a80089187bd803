import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, SystemClock } from '#base/clock.ts'
import type { FakeClock } from '#base/fake-clock.ts'
import { SystemRandom } from '#base/random.ts'
import { parseConfig } from '#config/parse-config.ts'
import { createNotifier } from '#host/notify.ts'
import { splitCertificates } from '#pki/certificate.ts'
import { encodePem } from '#pki/pem.ts'
import { type Connection, connectUnix, type RpcClient } from '#rpc/client.ts'
import { DiagnosisDefinition, type Status } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { SpiffeWorkloadAPIDefinition, type X509SVID } from '#rpc/gen/spiffe/workload/workload.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { openLog } from '#telemetry/log.ts'
import { Agent, type AgentEnd } from '../../src/agent/agent.ts'
import { type AgentConfig, agentConfigSchema } from '../../src/agent/config.ts'
import { type LiveServer, trustDomain } from './live-server.ts'

/** The header every call of the Workload API carries. */
export const workloadHeader = { 'workload.spiffe.io': 'true' } as const

/** The selector that the process that runs the tests shows. */
export const ownSelector = `unix:uid:${process.getuid?.() ?? 0}`

export interface LiveAgentOptions {
  readonly clock?: Clock
  /** Where the server is reached; its own port when absent. */
  readonly port?: number
  /** Further lines of agent.yaml. */
  readonly settings?: string
  /** One to use again, as after a restart. It is then the caller's to remove. */
  readonly directory?: string
  /** YAML of `node_attestor`; a fresh join token when absent. */
  readonly nodeAttestor?: string
}

/** An agent in this process on real sockets, that has attested to a server with a join token. */
export class LiveAgent implements AsyncDisposable {
  readonly agent: Agent
  /** As it was started with. */
  readonly config: AgentConfig
  readonly directory: string
  /** Every line of the log. */
  readonly lines: readonly string[]
  /** Resolves when the agent has ended. */
  readonly ended: Promise<AgentEnd>
  readonly #workload: Connection
  readonly #admin: Connection
  readonly #stop = new AbortController()
  readonly #ownsDirectory: boolean

  private constructor(parts: {
    agent: Agent
    config: AgentConfig
    directory: string
    lines: readonly string[]
    ownsDirectory: boolean
  }) {
    this.agent = parts.agent
    this.config = parts.config
    this.directory = parts.directory
    this.lines = parts.lines
    this.#ownsDirectory = parts.ownsDirectory
    const clock = new SystemClock()
    this.#workload = connectUnix(this.workloadSocket, { clock })
    this.#admin = connectUnix(join(this.directory, 'admin', 'admin.sock'), { clock })
    this.ended = this.agent.run(this.#stop.signal)
  }

  /** Opens the sockets; the agent has the whole test to attest and to follow the server. */
  static async start(server: LiveServer, options: LiveAgentOptions = {}): Promise<LiveAgent> {
    const { clock = new SystemClock(), settings = '' } = options
    const port = options.port ?? server.server.port ?? 0
    const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'assay-agent-')))
    const nodeAttestor = options.nodeAttestor ?? `join_token: { token: ${await joinToken(server)} }`
    const { x509Authorities } = await server.local.client(BundleDefinition).getBundle({})
    await writeFile(
      join(directory, 'bundle.pem'),
      x509Authorities.map(({ asn1 }) => encodePem('CERTIFICATE', asn1)).join(''),
    )
    const config = parseConfig(
      agentConfigSchema,
      `
trust_domain: ${trustDomain}
data_dir: data
server_address: 127.0.0.1
server_port: ${port}
trust_bundle_path: bundle.pem
socket_path: public/api.sock
admin_socket_path: admin/admin.sock
node_attestor: { ${nodeAttestor} }
log_level: debug
${settings}
`,
      { file: join(directory, 'agent.yaml') },
    )
    const lines: string[] = []
    const log = openLog({
      level: config.log_level,
      format: 'json',
      clock,
      sink: { write: (line) => lines.push(line) },
    })
    const agent = await Agent.open(config, {
      clock,
      random: new SystemRandom(),
      log,
      notifier: createNotifier({ environment: {}, pid: 0, onError: () => {} }),
      monotonicMs: () => performance.now(),
      activated: new Map(),
    })
    return new LiveAgent({
      agent,
      config,
      directory,
      lines,
      ownsDirectory: options.directory === undefined,
    })
  }

  get workloadSocket(): string {
    return join(this.directory, 'public', 'api.sock')
  }

  /** The Workload API, without the header: pass {@link workloadHeader}. */
  get workload(): RpcClient<SpiffeWorkloadAPIDefinition> {
    return this.#workload.client(SpiffeWorkloadAPIDefinition)
  }

  get workloadConnection(): Connection {
    return this.#workload
  }

  get adminConnection(): Connection {
    return this.#admin
  }

  status(): Promise<Status> {
    return this.#admin.client(DiagnosisDefinition).getStatus({})
  }

  /** Waits until the agent follows the server and holds `entries` entries at least; returns its ID. */
  async ready(entries = 0): Promise<SpiffeId> {
    const signal = AbortSignal.timeout(10_000)
    for (;;) {
      const status = await this.status()
      if (status.state === 'ready' && status.entries >= entries)
        return parseSpiffeId(status.agentId)
      if (signal.aborted) {
        throw new Error(
          `the agent is ${status.state}: ${status.detail}\n${this.lines.slice(-10).join('')}`,
        )
      }
      await breath()
    }
  }

  /** Ends the agent; the directory stays when it was given. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#workload.close()
    this.#admin.close()
    this.#stop.abort(new Error('the test is over'))
    await this.ended
    await this.agent[Symbol.asyncDispose]()
    if (this.#ownsDirectory) await rm(this.directory, { recursive: true })
  }
}

export async function joinToken(server: LiveServer): Promise<string> {
  return (await server.local.client(AgentDefinition).createJoinToken({ ttl: 600 })).value
}

/** Lets sockets be read. */
export function breath(milliseconds = 2): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  setTimeout(resolve, milliseconds)
  return promise
}

/** Moves a clock that server and agent share, in steps small enough that each hears what the other says meanwhile. */
export async function passTime(clock: FakeClock, minutes: number): Promise<void> {
  // Steps that are small beside the limits of calls, which are answered in real time.
  for (let seconds = 0; seconds < minutes * 60; seconds += 5) {
    await clock.advance(Temporal.Duration.from({ seconds: 5 }))
    await breath()
  }
}

/** Waits until `look` finds something, and returns it. It looks every `pauseMs`, for at most 20 s. */
export async function eventually<T>(
  look: () => T | undefined | Promise<T | undefined>,
  what: string,
  pauseMs = 2,
): Promise<T> {
  const signal = AbortSignal.timeout(20_000)
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (signal.aborted) throw new Error(`${what} has not come within 20 s`)
    await breath(pauseMs)
  }
}

/** What a workload verifies its peers by, when it has nothing but this SVID of the Workload API. */
export const bundleThatCameWith = ({ bundle }: Pick<X509SVID, 'bundle'>): Bundle => ({
  trustDomain: parseTrustDomain(trustDomain),
  x509Authorities: splitCertificates(bundle).map((certificate) => ({
    certificate,
    tainted: false,
  })),
  jwtAuthorities: [],
  refreshHintSeconds: 0,
  sequenceNumber: 0n,
})

/** A stream whose answers are taken one by one. */
export class Taken<T> implements Disposable {
  readonly #iterator: AsyncIterator<T>
  readonly #stop: AbortController
  #next: Promise<IteratorResult<T>> | undefined

  /** `open` starts the stream with the signal it is given. */
  constructor(open: (signal: AbortSignal) => AsyncIterable<T>) {
    this.#stop = new AbortController()
    this.#iterator = open(this.#stop.signal)[Symbol.asyncIterator]()
  }

  /** @throws what the server threw; Error when the stream ends or nothing comes within 10 s. */
  async next(): Promise<T> {
    this.#next ??= this.#iterator.next()
    const guard = AbortSignal.timeout(10_000)
    const { promise: late, reject } = Promise.withResolvers<never>()
    guard.addEventListener('abort', () => reject(new Error('no answer within 10 s')))
    const result = await Promise.race([this.#next, late])
    this.#next = undefined
    if (result.done === true) throw new Error('the stream has ended')
    return result.value
  }

  /** Whether nothing comes while `work` runs. */
  async isSilentWhile(work: () => Promise<void>): Promise<boolean> {
    this.#next ??= this.#iterator.next()
    let hasCome = false
    this.#next.then(
      () => {
        hasCome = true
      },
      () => {
        hasCome = true
      },
    )
    await work()
    return !hasCome
  }

  [Symbol.dispose](): void {
    this.#stop.abort(new Error('the test has seen enough'))
    this.#next?.catch(() => {})
  }
}
