import { type Connection, connectUnix } from '#rpc/client.ts'
import { SpiffeWorkloadAPIDefinition } from '#rpc/gen/spiffe/workload/workload.ts'
import { type Effort, type Figure, type Finding, measure, summary } from './measure.ts'
import { ageMs } from './processes.ts'
import { clock, createEntries, deleteEntries, untilTrue } from './registration.ts'
import { type OwnPair, ownSelector, type Subject } from './subject.ts'

const header = { metadata: { 'workload.spiffe.io': 'true' } }

const workloadApi = (connection: Connection) => connection.client(SpiffeWorkloadAPIDefinition)

/** Reads the first message of a new stream. */
async function firstX509Svids(connection: Connection): Promise<void> {
  for await (const { svids } of workloadApi(connection).fetchX509SVID({}, header)) {
    if (svids.length === 0) throw new Error('no SVID')
    return
  }
}

async function withOwnConnection(socket: string): Promise<void> {
  using connection = connectUnix(socket, { clock })
  await firstX509Svids(connection)
}

/**
 * Sees to it that there is one entry for this process, which is the workload. It stays: an agent that polls would
 * show it for a while after it is gone.
 */
async function registerSelf({ server, agent }: Subject): Promise<void> {
  await createEntries(server, 1, {
    parentId: agent.id,
    path: '/bench/workload',
    selector: ownSelector,
  })
  await untilTrue(async () => {
    await withOwnConnection(agent.socket)
    return true
  })
}

/** What a workload asks of the agent. */
export const workloadCall =
  (kind: 'x509 shared' | 'x509 own' | 'jwt shared') =>
  async (work: string, subject: Subject, effort: Effort): Promise<Figure> => {
    const { socket, pid } = subject.agent
    await registerSelf(subject)
    using shared = connectUnix(socket, { clock })
    const calls = {
      'x509 shared': () => firstX509Svids(shared),
      'x509 own': () => withOwnConnection(socket),
      'jwt shared': async () => {
        await workloadApi(shared).fetchJWTSVID({ audience: ['bench'], spiffeId: '' }, header)
      },
    }
    return await measure({ work, pid, call: calls[kind] }, effort)
  }

/** From the call that creates an entry to the message on an open stream that has its SVID. */
export async function propagation(work: string, subject: Subject, times: number): Promise<Finding> {
  const { server, agent } = subject
  await registerSelf(subject)
  using connection = connectUnix(agent.socket, { clock })
  const stop = new AbortController()
  const messages = workloadApi(connection)
    .fetchX509SVID({}, { ...header, signal: stop.signal })
    [Symbol.asyncIterator]()
  const until = async (count: number): Promise<void> => {
    while ((await messages.next()).value?.svids.length !== count);
  }
  await until(1)
  const waits: number[] = []
  for (let index = 0; index < times; index++) {
    const start = performance.now()
    const ids = await createEntries(server, 1, {
      parentId: agent.id,
      path: `/bench/propagation/${index}`,
      selector: ownSelector,
    })
    await until(2)
    waits.push(performance.now() - start)
    await deleteEntries(server, ids)
    await until(1)
  }
  stop.abort()
  return { work, values: summary(waits) }
}

/** From the start of the agent's process to the first SVID a workload gets: attestation by TPM, sync, signature. */
export async function agentStart(
  work: string,
  subject: Subject,
  own: OwnPair,
  times: number,
): Promise<Finding> {
  await registerSelf(subject)
  const waits: number[] = []
  for (let index = 0; index < times; index++) {
    const before = subject.agent.pid
    let served = 0
    const restarted = own.restartAgent()
    await untilTrue(
      async () => {
        if (subject.agent.pid === before) return false
        await withOwnConnection(subject.agent.socket)
        served = ageMs(subject.agent.pid)
        return true
      },
      { everyMs: 10 },
    )
    waits.push(served)
    await restarted
  }
  return { work, values: summary(waits) }
}
