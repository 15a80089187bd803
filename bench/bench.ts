// Starts a server and an agent (or takes a pair that runs) and prints what each kind of work costs.
import process from 'node:process'
import { parseArgs } from 'node:util'
import { Installation, type KeyManagerKind } from '../test/support/installation.ts'
import type { Figure, Finding } from './measure.ts'
import { residentMegabytes } from './processes.ts'
import { rows } from './rows.ts'
import { type Subject, startOwnPair } from './subject.ts'
import { head, line } from './table.ts'

const help = `usage: bench/bench [--key-manager disk|pkcs11|memory] [OPTION…]
       bench/bench --server HOST:PORT --server-socket PATH --server-pid PID \\
                   --agent-socket PATH --agent-pid PID --agent-id ID [OPTION…]

The first form starts Assay's server and agent itself. The second drives a pair that runs already, and speaks
SPIRE's APIs only: SPIRE's own, for one; switch its rate limits off. Calls come from one process, 16 in flight
unless the row says otherwise; each figure is the middle one of the runs. CPU is the time of the serving process
for one operation: the figure to compare, because the caller takes its share of the cores. On two cores or more
what serves is bound to the first and the caller to the second.

  --pq SET       certificates signed twice: ml-dsa-44, ml-dsa-65 or ml-dsa-87 (bench/post-quantum has sizes)
  --only TEXT    rows whose name has TEXT, in any case; may be given several times
  --list         the names of the rows
  --seconds N    length of a run (2)
  --runs N       runs of each row (3)
  --agents N     idle agents (1000)
  --json         one object at the end instead of the table
`

const { values } = parseArgs({
  options: {
    'key-manager': { type: 'string', default: 'disk' },
    pq: { type: 'string' },
    only: { type: 'string', multiple: true, default: [] },
    list: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '2' },
    runs: { type: 'string', default: '3' },
    agents: { type: 'string', default: '1000' },
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

const chosen = rows.filter(({ work }) => {
  const name = work.toLowerCase()
  return values.only.length === 0 || values.only.some((text) => name.includes(text.toLowerCase()))
})

async function bench(subject: Subject): Promise<void> {
  const results: (Figure | Finding)[] = []
  const report = (result: Figure | Finding): void => {
    results.push(result)
    if (!values.json) console.log(line(result))
  }
  if (!values.json) console.log(head)
  report({
    work: 'resident memory, idle',
    values: {
      'MB server': residentMegabytes(subject.server.pid),
      'MB agent': residentMegabytes(subject.agent.pid),
    },
  })
  for (const row of chosen) {
    const result = await row.measure(subject, {
      seconds: Number(values.seconds),
      runs: Number(values.runs),
      agents: Number(values.agents),
    })
    if (result !== undefined) report(result)
  }
  if (values.json) console.log(JSON.stringify(results))
}

if (values.help) {
  console.log(help)
} else if (values.list) {
  for (const { work } of rows) console.log(work)
} else if (values.server !== undefined) {
  await bench(givenPair(values.server))
  process.exit()
} else {
  await using assay = new Installation()
  const pair = await startOwnPair(assay, {
    keyManager: values['key-manager'] as KeyManagerKind,
    pqParameterSet: values.pq,
  })
  await bench(pair)
}
