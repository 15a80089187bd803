import { execFile } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { chmodSync, existsSync, mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { Daemon } from './daemon.ts'

const root = new URL('../..', import.meta.url).pathname.replace(/\/$/, '')

/** What a program that ended said. */
export interface Finished {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end. */
export async function finished(program: string, args: readonly string[]): Promise<Finished> {
  return new Promise((resolve) => {
    const options = { encoding: 'utf8', maxBuffer: 2 ** 26 } as const
    const child = execFile(program, args, options, (_error, stdout, stderr) => {
      resolve({ status: child.exitCode ?? 1, stdout, stderr })
    })
  })
}

/** @throws Error with what the program wrote to standard error when it does not end with status 0. */
export async function output(program: string, args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await finished(program, args)
  if (status !== 0)
    throw new Error(`${program} ${args.join(' ')}: ${stderr.trim() || `exit status ${status}`}`)
  return stdout
}

/**
 * A TCP port that nobody listens on. Below the range from which outgoing connections take theirs, so that none
 * of them is in the way by the time the daemon listens.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000)
    const server = createServer()
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!free) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}

async function isReady(port: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${port}/ready`)).ok
  } catch {
    return false
  }
}

/** Where the server keeps its keys, as server.yaml names it. */
export type KeyManagerKind = 'pkcs11' | 'disk' | 'memory'

/**
 * A whole Assay in a directory of its own below /tmp: software TPM, PKCS#11 token, server and agent as real
 * processes, driven through the command line. Disposing of it ends every process and removes the directory.
 */
export class Installation implements AsyncDisposable {
  readonly trustDomain = 'example.org'
  readonly directory: string
  /** Everything that was started, in order. */
  readonly daemons: Daemon[] = []
  #serverPort = 0
  #serverHealthPort = 0
  #released = false

  constructor() {
    this.directory = mkdtempSync('/tmp/assay-')
    // Other users may pass through, to reach the Workload API's socket and nothing else.
    chmodSync(this.directory, 0o711)
  }

  /** The path of `name` in the directory. */
  at(name: string): string {
    return join(this.directory, name)
  }

  get workloadSocket(): string {
    return this.workloadSocketOf('')
  }

  get serverPort(): number {
    return this.#serverPort
  }

  get tcti(): string {
    return `swtpm:path=${this.at('tpm/sock')}`
  }

  /** The SPIFFE ID with this path. */
  id(path: string): string {
    return `spiffe://${this.trustDomain}${path}`
  }

  /** The Workload API's socket of the agent on another node. */
  workloadSocketOf(node: string): string {
    return this.at(`${node}public/api.sock`)
  }

  readonly atServer = (): readonly string[] => ['--socket-path', this.at('server.sock')]
  readonly atAgent = (): readonly string[] => ['--socket-path', this.workloadSocket]
  readonly atAgentAdministration = (): readonly string[] => [
    '--admin-socket-path',
    this.at('admin/admin.sock'),
  ]

  /** Runs `assay` and returns what it printed. */
  assay(...args: readonly string[]): Promise<string> {
    return output(`${root}/bin/assay`, args)
  }

  /** Runs `assay`, whatever its exit status. */
  tryAssay(...args: readonly string[]): Promise<Finished> {
    return finished(`${root}/bin/assay`, args)
  }

  /** Runs `assay … --json` against the server and returns what it printed, parsed. */
  async ask(...args: readonly string[]): Promise<unknown> {
    return JSON.parse(await this.assay(...args, '--json', ...this.atServer()))
  }

  /** Manufactures a software TPM and starts it; returns the hash of its endorsement key. */
  async startTpm(): Promise<string> {
    await output(`${root}/scripts/software-tpm`, ['manufacture', this.at('tpm')])
    const tpm = this.#start('swtpm', [`${root}/scripts/software-tpm`, 'run', this.at('tpm')])
    let fingerprint = ''
    await tpm.waitUntil(async () => {
      const { status, stdout } = await this.tryAssay('tpm', 'fingerprint', '--tcti', this.tcti)
      fingerprint = stdout.trim()
      return status === 0
    })
    return fingerprint
  }

  /** Makes a PKCS#11 token with the label `assay`. */
  async makeToken(): Promise<void> {
    await output(`${root}/scripts/software-hsm`, [this.at('hsm'), 'assay'])
  }

  /** Starts the server; `settings` are further lines of server.yaml. */
  async startServer(keyManager: KeyManagerKind, settings = ''): Promise<Daemon> {
    this.#serverPort = await freePort()
    this.#serverHealthPort = await freePort()
    const keyManagers = {
      pkcs11: `pkcs11: { module: /usr/lib/softhsm/libsofthsm2.so, token_label: assay, pin_file: ${this.at('hsm/pin')} }`,
      disk: `disk: { path: ${this.at('server/keys')} }`,
      memory: 'memory: {}',
    }
    const tpm = existsSync(this.at('tpm'))
      ? `  tpm: { endorsement_ca: ${this.at('tpm/ca')}, allow: inventory }\n`
      : ''
    writeFileSync(
      this.at('server.yaml'),
      `trust_domain: ${this.trustDomain}
data_dir: ${this.at('server')}
propagation_delay: 0s
bind_address: 127.0.0.1
bind_port: ${this.#serverPort}
socket_path: ${this.at('server.sock')}
datastore: { sqlite: { path: ${this.at('server/datastore.sqlite3')} } }
key_manager: { ${keyManagers[keyManager]} }
node_attestors:
${tpm}  join_token: {}
health_checks: { bind_address: 127.0.0.1, bind_port: ${this.#serverHealthPort} }
${settings}`,
    )
    return this.startServerAgain()
  }

  /** Starts the server with the configuration that it had. */
  startServerAgain(): Promise<Daemon> {
    return this.#startReady('assay-server', this.#serverHealthPort)
  }

  /**
   * Starts the agent with `nodeAttestor`, YAML of one of them; `settings` are further lines of agent.yaml. `node` is what
   * the names of the files of one more node begin with.
   */
  async startAgent(
    nodeAttestor = `tpm: { tcti: "${this.tcti}" }`,
    { settings = '', node = '' }: { readonly settings?: string; readonly node?: string } = {},
  ): Promise<Daemon> {
    const health = await freePort()
    writeFileSync(this.at('bundle.pem'), await this.assay('bundle', 'show', ...this.atServer()))
    writeFileSync(
      this.at(`${node}agent.yaml`),
      `trust_domain: ${this.trustDomain}
data_dir: ${this.at(`${node}agent`)}
server_address: 127.0.0.1
server_port: ${this.#serverPort}
trust_bundle_path: ${this.at('bundle.pem')}
socket_path: ${this.workloadSocketOf(node)}
admin_socket_path: ${this.at(`${node}admin/admin.sock`)}
node_attestor: { ${nodeAttestor} }
workload_attestors: { unix: {} }
health_checks: { bind_address: 127.0.0.1, bind_port: ${health} }
${settings}`,
    )
    return this.#startReady('assay-agent', health, node)
  }

  /** Writes an inventory that allows one TPM, and imports it. */
  async allowTpm(fingerprint: string, nodeName: string): Promise<string> {
    writeFileSync(
      this.at('inventory.csv'),
      `endorsement_key_hash,node_name\n${fingerprint},${nodeName}\n`,
    )
    return this.assay('inventory', 'import', this.at('inventory.csv'), ...this.atServer())
  }

  /** Registers an identity below a parent; returns the entry's id. */
  async createEntry(
    parentId: string,
    spiffeId: string,
    selector: string,
    ...options: readonly string[]
  ): Promise<string> {
    const args = [
      '--parent-id',
      parentId,
      '--spiffe-id',
      spiffeId,
      '--selector',
      selector,
      ...options,
    ]
    const [entry] = (await this.ask('entry', 'create', ...args)) as readonly { id: string }[]
    return entry?.id ?? ''
  }

  /** Lets everything run on and keeps the directory: disposing does nothing then. */
  release(): void {
    this.#released = true
    for (const daemon of this.daemons) daemon.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#released) return
    for (const daemon of this.daemons.reverse()) await daemon[Symbol.asyncDispose]()
    await rm(this.directory, { recursive: true, force: true })
  }

  #start(name: string, command: readonly [string, ...string[]], environment = {}): Daemon {
    const daemon = new Daemon(name, command, { log: this.at(`${name}.log`), environment })
    this.daemons.push(daemon)
    return daemon
  }

  async #startReady(
    name: 'assay-server' | 'assay-agent',
    healthPort: number,
    node = '',
  ): Promise<Daemon> {
    const config = this.at(name === 'assay-server' ? 'server.yaml' : `${node}agent.yaml`)
    const daemon = this.#start(
      `${node}${name}`,
      [`${root}/bin/${name}`, 'run', '--config', config],
      {
        SOFTHSM2_CONF: this.at('hsm/softhsm2.conf'),
      },
    )
    await daemon.waitUntil(() => isReady(healthPort))
    return daemon
  }
}
