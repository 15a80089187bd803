import { FeedDefinition } from '#rpc/gen/assay/server/v1/feed.ts'
import { openAgentSession } from './agent-session.ts'
import type { Finding } from './measure.ts'
import { residentMegabytes, usage } from './processes.ts'
import { clock } from './registration.ts'
import type { OwnPair, Subject } from './subject.ts'

/** How many attest at a time. */
const concurrency = 16

/** Attested agents that hold their streams and to whom nothing happens. */
export async function idleAgents(
  work: string,
  { server }: Subject,
  own: OwnPair,
  { agents, seconds }: { readonly agents: number; readonly seconds: number },
): Promise<Finding> {
  await using fleet = new AsyncDisposableStack()
  const memory = residentMegabytes(server.pid)
  let left = agents
  const join = async (): Promise<void> => {
    while (left-- > 0) {
      const { connection } = await openAgentSession(server)
      fleet.use(connection)
      const stream = connection.client(FeedDefinition).watch({})[Symbol.asyncIterator]()
      await stream.next()
      // Read on, as an agent does; it ends with the connection.
      void drain(stream)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, join))
  await settle()
  const before = { cpu: usage(server.pid).cpuSeconds, uses: await datastoreUses(own) }
  const start = performance.now()
  await clock.sleep(Temporal.Duration.from({ seconds }), new AbortController().signal)
  const elapsed = (performance.now() - start) / 1000
  const after = { cpu: usage(server.pid).cpuSeconds, uses: await datastoreUses(own) }
  return {
    work,
    values: {
      '% of a core': ((after.cpu - before.cpu) / elapsed) * 100,
      'datastore uses a second': (after.uses - before.uses) / elapsed,
      'KB an agent': ((residentMegabytes(server.pid) - memory) / agents) * 1024,
    },
  }
}

async function drain(stream: AsyncIterator<unknown>): Promise<void> {
  try {
    while ((await stream.next()).done !== true);
  } catch {
    // The connection was closed.
  }
}

/** Lets what attesting left behind be done and collected. */
const settle = (): Promise<void> =>
  clock.sleep(Temporal.Duration.from({ seconds: 5 }), new AbortController().signal)

/** How often the server has used its datastore so far, by its own count. */
async function datastoreUses({ metricsUrl }: OwnPair): Promise<number> {
  const text = await (await fetch(metricsUrl)).text()
  let sum = 0
  for (const [, value] of text.matchAll(/^assay_datastore_operations_total\{.*\} (\d+)$/gm))
    sum += Number(value)
  if (sum === 0) throw new Error('the server does not count its uses of the datastore')
  return sum
}
