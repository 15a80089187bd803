import { sign } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { utf8Bytes } from '#base/bytes.ts'
import { type Clock, SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { parseConfig } from '#config/parse-config.ts'
import { createNotifier } from '#host/notify.ts'
import { createCsr } from '#pki/csr.ts'
import { generateEcKeyPair, type KeyPair } from '#pki/private-key.ts'
import { type Connection, connectTls, connectUnix } from '#rpc/client.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import type { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { Partially } from '#rpc/service.ts'
import type { TlsIdentity } from '#rpc/tls.ts'
import { parseSelector } from '#spiffe/selector.ts'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import { openLog } from '#telemetry/log.ts'
import { type ServerConfig, serverConfigSchema } from '../../src/server/config.ts'
import type { Datastore } from '../../src/server/datastore/datastore.ts'
import { openSqliteDatastore } from '../../src/server/datastore/sql/sqlite.ts'
import { Server } from '../../src/server/server.ts'

export const trustDomain = 'example.org'

/** An agent that has attested, as far as a server can see. */
export interface TestAgent {
  readonly id: SpiffeId
  readonly identity: TlsIdentity
  readonly connection: Connection
}

/** A server in this process on real sockets, in a directory of its own, with keys and rows in memory. */
export class LiveServer implements AsyncDisposable {
  readonly server: Server
  /** As it was started with. */
  readonly config: ServerConfig
  readonly datastore: Datastore
  readonly directory: string
  /** The directory was given, and is left behind. */
  readonly #keeps: boolean
  readonly clock: Clock
  /** Every line of the log. */
  readonly lines: readonly string[]
  /** The administration socket. */
  readonly local: Connection
  readonly #stop = new AbortController()
  readonly #running: Promise<void>
  readonly #connections: Connection[] = []

  private constructor(parts: {
    config: ServerConfig
    server: Server
    datastore: Datastore
    directory: string
    clock: Clock
    lines: readonly string[]
    keeps: boolean
  }) {
    this.#keeps = parts.keeps
    this.server = parts.server
    this.config = parts.config
    this.datastore = parts.datastore
    this.directory = parts.directory
    this.clock = parts.clock
    this.lines = parts.lines
    this.local = connectUnix(join(parts.directory, 'server.sock'), { clock: new SystemClock() })
    this.#running = parts.server.run(this.#stop.signal)
  }

  /**
   * `settings` are further lines of server.yaml. A server in a `directory` of the caller's keeps its keys and
   * rows there, and starts with them again.
   */
  static async start(
    options: {
      clock?: Clock
      settings?: string
      directory?: string
      trustDomain?: string
      /** As server.yaml has it. Default: one that fits `directory`. */
      keyManager?: string
    } = {},
  ): Promise<LiveServer> {
    const { clock = new SystemClock(), settings = 'ratelimit: { attestation: false }' } = options
    const keeps = options.directory !== undefined
    const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'assay-server-')))
    const config = parseConfig(
      serverConfigSchema,
      `
trust_domain: ${options.trustDomain ?? trustDomain}
data_dir: data
propagation_delay: 0s
bind_address: 127.0.0.1
bind_port: 0
socket_path: server.sock
key_manager: { ${options.keyManager ?? (keeps ? 'disk: {}' : 'memory: {}')} }
node_attestors: { join_token: {} }
health_checks: { bind_port: 0 }
telemetry: { prometheus: { port: 0 }, by_namespace: true }
log_level: debug
${settings}
`,
      { file: join(directory, 'server.yaml') },
    )
    const lines: string[] = []
    const log = openLog({
      level: config.log_level,
      format: 'json',
      clock,
      sink: { write: (line) => lines.push(line) },
    })
    const datastore = openSqliteDatastore({
      path: keeps ? join(directory, 'datastore.sqlite3') : ':memory:',
      log,
    })
    const server = await Server.open(config, {
      clock,
      random: new SystemRandom(),
      log,
      notifier: createNotifier({ environment: {}, pid: 0, onError: () => {} }),
      ownUid: process.getuid?.() ?? 0,
      monotonicMs: () => performance.now(),
      openDatastore: () => datastore,
    })
    return new LiveServer({ server, config, datastore, directory, clock, lines, keeps })
  }

  /** A connection over TLS, with an identity or without. */
  connect(identity?: TlsIdentity): Connection {
    const connection = connectTls({
      host: '127.0.0.1',
      port: this.server.port ?? 0,
      clock: new SystemClock(),
      verifyServer: () => {},
      ...(identity !== undefined && { identity }),
    })
    this.#connections.push(connection)
    return connection
  }

  /** A node that attests with a join token of its own. */
  async attest(): Promise<TestAgent> {
    const token = await this.local.client(AgentDefinition).createJoinToken({ ttl: 600 })
    const { id, identity } = await this.attestWith(token.value)
    return { id, identity, connection: this.connect(identity) }
  }

  /** Attests with this token over a connection without a certificate. */
  async attestWith(token: string): Promise<{ id: SpiffeId; identity: TlsIdentity }> {
    const key = generateEcKeyPair('ec-p256')
    using connection = this.connect()
    using call = connection.client(AgentDefinition).attestAgent()
    await call.send({
      step: {
        $case: 'params',
        value: {
          data: { type: 'join_token', payload: utf8Bytes(token) },
          params: { csr: csrOf(key) },
        },
      },
    })
    const response = await call.receive()
    call.end()
    if (response?.step?.$case !== 'result') throw new Error('the server did not answer')
    const { svid } = response.step.value
    return {
      id: parseSpiffeId(`spiffe://${svid?.id?.trustDomain}${svid?.id?.path}`),
      identity: { key: key.privateKey, certificates: svid?.certChain ?? [] },
    }
  }

  /** Creates an entry by its paths and selectors. */
  async createEntry(entry: {
    parent: SpiffeId
    path: string
    selectors?: readonly string[]
    more?: Partially<Entry>
  }): Promise<Entry> {
    const { parent, path, selectors = ['unix:uid:1000'], more = {} } = entry
    const response = await this.local.client(EntryDefinition).batchCreateEntry({
      entries: [
        {
          parentId: idOf(parent),
          spiffeId: { trustDomain, path },
          selectors: selectors.map((text) => {
            const [type = '', ...value] = parseSelector(text).split(':')
            return { type, value: value.join(':') }
          }),
          ...more,
        },
      ],
    })
    const [result] = response.results
    if (result?.status?.code !== 0 || result.entry === undefined) {
      throw new Error(`cannot create the entry: ${result?.status?.message}`)
    }
    return result.entry
  }

  /** An identity for any ID, as the server mints it for operators. */
  async mint(path: string): Promise<TlsIdentity> {
    const key = generateEcKeyPair('ec-p256')
    const { svid } = await this.local.client(SVIDDefinition).mintX509SVID({
      csr: csrOf(key, [`spiffe://${trustDomain}${path}`]),
    })
    return { key: key.privateKey, certificates: svid?.certChain ?? [] }
  }

  /** Audit records so far, oldest first. */
  audited(): readonly Readonly<Record<string, unknown>>[] {
    return this.lines.map((line) => JSON.parse(line)).filter(({ audit }) => audit === true)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of [this.local, ...this.#connections]) connection.close()
    this.#stop.abort(new Error('the test is over'))
    await this.#running
    await this.server[Symbol.asyncDispose]()
    if (!this.#keeps) await rm(this.directory, { recursive: true })
  }
}

/** A request signed by its key. */
export function csrOf(
  key: KeyPair,
  uris: readonly string[] = [],
  dnsNames: readonly string[] = [],
): Uint8Array {
  return createCsr({
    publicKey: key.publicKey,
    sign: (tbs, hash) => new Uint8Array(sign(hash, tbs, key.privateKey)),
    uris,
    dnsNames,
  })
}

/** An ID on the wire. */
export function idOf(id: SpiffeId): { trustDomain: string; path: string } {
  const [, , name = '', ...path] = id.split('/')
  return { trustDomain: name, path: `/${path.join('/')}` }
}
