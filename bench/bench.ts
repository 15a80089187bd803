// Starts a server and an agent (or takes a pair that runs) and prints what each kind of work costs.
import { execFileSync } from 'node:child_process'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { Installation, type KeyManagerKind } from '../test/support/installation.ts'
import type { Figure } from './measure.ts'
import { usage } from './processes.ts'
import { everything, propagation, type Subject } from './work.ts'

const help = `usage: bench/bench [--key-manager disk|pkcs11|memory] [--seconds N] [--runs N] [--json]
       bench/bench --server HOST:PORT --server-socket PATH --server-pid PID \\
                   --agent-socket PATH --agent-pid PID --agent-id ID …

The first form starts Assay's server and agent itself. The second drives a pair that runs already, and speaks
SPIRE's APIs: SPIRE's own, for one; switch its rate limits off. Calls come from one process, 16 in flight; each
figure is the middle one of the runs. CPU is the time of the serving process, children included, for one operation:
the figure to compare, because the caller takes its share of the cores. On two cores or more the servers are bound
to the first and the caller to the second.
`

const { values } = parseArgs({
  options: {
    'key-manager': { type: 'string', default: 'disk' },
    seconds: { type: 'string', default: '2' },
    runs: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
    server: { type: 'string' },
    'server-socket': { type: 'string' },
    'server-pid': { type: 'string' },
    'agent-socket': { type: 'string' },
    'agent-pid': { type: 'string' },
    'agent-id': { type: 'string' },
  },
})

function bind(pid: number, core: number): void {
  try {
    execFileSync('taskset', ['--all-tasks', '--pid', '--cpu-list', String(core), String(pid)], {
      stdio: 'ignore',
    })
  } catch {
    // One core, or no taskset: the figures are noisier, not wrong.
  }
}

async function ownPair(assay: Installation, keyManager: KeyManagerKind): Promise<Subject> {
  if (keyManager === 'pkcs11') await assay.makeToken()
  const server = await assay.startServer(
    keyManager,
    'ratelimit: { attestation: false, signing: false }\n',
  )
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  const agent = await assay.startAgent(`join_token: { token: ${token} }`)
  const [node] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  return {
    server: {
      host: '127.0.0.1',
      port: assay.serverPort,
      socket: assay.at('server.sock'),
      pid: server.pid,
    },
    agent: { socket: assay.workloadSocket, pid: agent.pid, id: node?.id ?? '' },
  }
}

function givenPair(address: string): Subject {
  const [host = '', port = ''] = address.split(':')
  const needed = (
    name: 'server-socket' | 'server-pid' | 'agent-socket' | 'agent-pid' | 'agent-id',
  ): string => {
    const value = values[name]
    if (value === undefined) throw new Error(`--server needs --${name} too`)
    return value
  }
  return {
    server: {
      host,
      port: Number(port),
      socket: needed('server-socket'),
      pid: Number(needed('server-pid')),
    },
    agent: {
      socket: needed('agent-socket'),
      pid: Number(needed('agent-pid')),
      id: needed('agent-id'),
    },
  }
}

const columns = [
  ['work', 58],
  ['per second', 11],
  ['p50 ms', 8],
  ['p99 ms', 8],
  ['CPU µs', 8],
  ['MB', 6],
] as const

function printRow(cells: readonly string[]): void {
  console.log(
    cells
      .map((cell, index) =>
        index === 0 ? cell.padEnd(58) : cell.padStart(columns[index]?.[1] ?? 8),
      )
      .join(' '),
  )
}

function printFigure({ work, rate, p50, p99, cpu, memory }: Figure): void {
  printRow([
    work,
    rate.toFixed(0),
    p50.toFixed(2),
    p99.toFixed(2),
    cpu.toFixed(0),
    memory.toFixed(0),
  ])
}

async function bench(subject: Subject): Promise<void> {
  bind(subject.server.pid, 0)
  bind(subject.agent.pid, 0)
  bind(process.pid, 1)
  const megabytes = (pid: number): number => usage(pid).residentBytes / 2 ** 20
  const idle = { server: megabytes(subject.server.pid), agent: megabytes(subject.agent.pid) }
  if (!values.json) {
    printRow(columns.map(([name]) => name))
    console.log(
      `resident memory, idle: server ${idle.server.toFixed(0)} MB, agent ${idle.agent.toFixed(0)} MB`,
    )
  }
  const figures: Figure[] = []
  for await (const figure of everything(subject, {
    seconds: Number(values.seconds),
    runs: Number(values.runs),
  })) {
    figures.push(figure)
    if (!values.json) printFigure(figure)
  }
  const waits = await propagation(subject, 20)
  const median = waits[Math.floor(waits.length / 2)] ?? 0
  const worst = waits.at(-1) ?? 0
  if (values.json) console.log(JSON.stringify({ idle, figures, propagation: { median, worst } }))
  else
    console.log(
      `entry created → on the workload's stream: median ${median.toFixed(1)} ms, worst of 20 ${worst.toFixed(1)} ms`,
    )
}

if (values.help) {
  console.log(help)
} else if (values.server !== undefined) {
  await bench(givenPair(values.server))
  process.exit()
} else {
  await using assay = new Installation()
  await bench(await ownPair(assay, values['key-manager'] as KeyManagerKind))
}
