import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { goProgram } from '../support/go-program.ts'

const root = new URL('../..', import.meta.url).pathname.replace(/\/$/, '')
const cache = `${root}/.cache/conformance`

/** One line a client printed. */
export interface ClientEvent {
  readonly event: string
  readonly [name: string]: unknown
}

/** A SPIFFE library in another language, ready to run; or why it is not. */
export type Client =
  | { readonly command: readonly [string, ...string[]]; readonly missing?: undefined }
  | { readonly missing: string }

/** Builds the go-spiffe client, once for a version of its sources. */
export function goClient(): Client {
  const program = goProgram('test/conformance/go', 'go-client')
  return program.missing === undefined ? { command: [program.binary] } : program
}

/** Makes a virtual environment with py-spiffe, once for a version of its requirements. */
export function pythonClient(): Client {
  const requirements = `${root}/test/conformance/python/requirements.txt`
  const environment = `${cache}/python`
  const stamp = `${environment}/requirements.txt`
  const wanted = readFileSync(requirements, 'utf8')
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    const made = spawnSync('python3', ['-m', 'venv', '--clear', environment], { encoding: 'utf8' })
    if (made.status !== 0)
      return { missing: 'python3 cannot make a virtual environment (python3-venv)' }
    const pip = spawnSync(`${environment}/bin/pip`, ['install', '--quiet', '-r', requirements], {
      encoding: 'utf8',
    })
    if (pip.status !== 0)
      return { missing: `pip cannot install it: ${pip.stderr.trim().split('\n').at(-1)}` }
    copyFileSync(requirements, stamp)
  }
  return { command: [`${environment}/bin/python`, `${root}/test/conformance/python/client.py`] }
}

/** A program of test/conformance/java, which Java 17 compiles when it runs it; its libraries are fetched by Maven once. */
export function javaClient(program: 'Verify' | 'Workload'): Client {
  if (spawnSync('java', ['-version']).status !== 0) return { missing: 'Java is not installed' }
  const sources = `${root}/test/conformance/java`
  const directory = `${cache}/java`
  const stamp = `${directory}/pom.xml`
  const wanted = readFileSync(`${sources}/pom.xml`, 'utf8')
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    mkdirSync(directory, { recursive: true })
    const fetched = spawnSync(
      'mvn',
      ['-q', '-B', '-f', sources, 'dependency:copy-dependencies', `-DoutputDirectory=${directory}`],
      { encoding: 'utf8' },
    )
    if (fetched.error !== undefined) return { missing: 'Maven is not installed' }
    if (fetched.status !== 0) return { missing: `Maven cannot fetch what ${sources}/pom.xml names` }
    copyFileSync(`${sources}/pom.xml`, stamp)
  }
  return { command: ['java', '-cp', `${directory}/*`, `${sources}/${program}.java`] }
}

/** A copy that other users can run, wherever the checkout is. */
export function copyForEveryone(client: Client, directory: string): Client {
  if (client.missing !== undefined) return client
  const copy = `${directory}/client`
  copyFileSync(client.command[0], copy)
  chmodSync(copy, 0o755)
  return { command: [copy, ...client.command.slice(1)] }
}

/** The numeric id of a user that every Debian has. */
export const uidOf = (user: string): number =>
  Number(execFileSync('id', ['-u', user], { encoding: 'utf8' }))

/** Runs a client as `uid` (its own when absent); yields what it says, as it says it. */
export async function* run(
  client: Client,
  args: readonly string[],
  {
    uid = process.getuid?.() ?? 0,
    signal,
  }: { readonly uid?: number; readonly signal?: AbortSignal } = {},
): AsyncGenerator<ClientEvent> {
  if (client.missing !== undefined) throw new Error(client.missing)
  const [program, ...before] = client.command
  const child = spawn(program, [...before, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(process.getuid?.() === 0 && { uid, gid: uid }),
    ...(signal !== undefined && { signal }),
  })
  // Aborting is how a test ends a client that would go on.
  child.on('error', (error) => {
    if (error.name !== 'AbortError') throw error
  })
  for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line)
}

/** The first event of that name; an `error` event of the client fails the test with what it said. */
export async function expectEvent(
  events: AsyncIterator<ClientEvent>,
  name: string,
): Promise<ClientEvent> {
  for (;;) {
    const { done, value } = await events.next()
    if (done) throw new Error(`the client ended without saying ${name}`)
    if (value.event === name) return value
    if (value.event === 'error') throw new Error(`the client failed: ${JSON.stringify(value)}`)
  }
}
