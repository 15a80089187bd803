import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { until } from './signing-load.ts'

const program = fileURLToPath(new URL('../../src/signer/main.ts', import.meta.url))

/** assay-signer as a service of its own: one for each connection to a socket. */
export interface SignerService extends AsyncDisposable {
  readonly socketPath: string
  /** The server.yaml it reads. */
  readonly configFile: string
  /** The signers that run now. */
  pids(): readonly number[]
}

/** What the service is made of. */
export interface SignerServiceOptions {
  /** Where socket and configuration are made. */
  readonly directory: string
  /** The variables of the signers. */
  readonly environment: Readonly<Record<string, string>>
  /** What is in the configuration below key_manager.pkcs11, in YAML. */
  readonly token: string
  /** The same below upstream_authority.pkcs11. */
  readonly upstream?: string
}

/** Starts it by systemd's own socket activation, without a unit around it. */
export async function startSignerService(options: SignerServiceOptions): Promise<SignerService> {
  const { directory, environment, token, upstream } = options
  const socketPath = join(directory, 'signer.sock')
  const configFile = join(directory, 'server.yaml')
  await writeFile(
    configFile,
    `trust_domain: example.org
data_dir: ${directory}
key_manager: { pkcs11: { ${token} } }
${upstream === undefined ? '' : `upstream_authority: { pkcs11: { ${upstream} } }`}
`,
  )
  const variables = Object.entries(environment).map(([name, value]) => `--setenv=${name}=${value}`)
  const command = [process.execPath, '--disable-proto=throw', program, '--config', configFile]
  const activator = spawn(
    'systemd-socket-activate',
    ['--accept', `--listen=${socketPath}`, ...variables, ...command],
    { stdio: 'ignore' },
  )
  const gone = once(activator, 'exit')
  await until('the socket', () => existsSync(socketPath))
  const pids = (): readonly number[] => {
    const path = `/proc/${activator.pid}/task/${activator.pid}/children`
    const children = existsSync(path) ? readFileSync(path, 'utf8').trim() : ''
    return children.split(' ').filter(Boolean).map(Number)
  }
  return {
    socketPath,
    configFile,
    pids,
    async [Symbol.asyncDispose]() {
      for (const pid of pids()) process.kill(pid, 'SIGKILL')
      activator.kill()
      await gone
    },
  }
}
