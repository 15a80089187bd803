import { SystemClock } from '#base/clock.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { connectUnix } from '#rpc/client.ts'
import { SpiffeWorkloadAPIDefinition } from '#rpc/gen/spiffe/workload/workload.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import {
  attest,
  joinTokens,
  newCsr,
  openAgentSession,
  type ServerAddress,
} from './agent-session.ts'
import { type Figure, type Load, median } from './measure.ts'

/** What is measured: Assay's own pair, or any other that speaks SPIRE's APIs. */
export interface Subject {
  readonly server: ServerAddress & { readonly pid: number }
  readonly agent: { readonly socket: string; readonly pid: number; readonly id: string }
}

export interface Effort {
  readonly seconds: number
  readonly runs: number
}

const clock = new SystemClock()
const header = { metadata: { 'workload.spiffe.io': 'true' } }

const wireId = (id: string) => {
  const [, , trustDomain = '', ...path] = id.split('/')
  return { trustDomain, path: `/${path.join('/')}` }
}

async function createEntries(
  { server }: Subject,
  count: number,
  {
    parentId,
    path,
    selector,
  }: { readonly parentId: string; readonly path: string; readonly selector: string },
): Promise<string[]> {
  using connection = connectUnix(server.socket, { clock })
  const { trustDomain } = wireId(parentId)
  const entries = Array.from({ length: count }, (_, index) =>
    Entry.create({
      parentId: wireId(parentId),
      spiffeId: { trustDomain, path: `${path}/${index}` },
      selectors: [{ type: 'unix', value: selector }],
    }),
  )
  const ids: string[] = []
  for (let at = 0; at < entries.length; at += 50) {
    const request = { entries: entries.slice(at, at + 50) }
    const { results } = await connection.client(EntryDefinition).batchCreateEntry(request)
    ids.push(...results.flatMap(({ entry }) => entry?.id ?? []))
  }
  return ids
}

/** Every attestation needs a token of its own, so the number of calls is given, not the time. */
async function joinTokenAttestation(subject: Subject, { seconds, runs }: Effort): Promise<Figure> {
  const tokens = await joinTokens(subject.server, Math.ceil(2500 * (seconds + 0.5) * runs))
  const keyPair = generateEcKeyPair('ec-p256')
  const load: Load = {
    work: 'join-token attestation, each on its own TLS connection',
    pid: subject.server.pid,
    concurrency: 16,
    seconds,
    async call() {
      const token = tokens.pop()
      if (token === undefined) throw new Error('the tokens have run out')
      await attest(subject.server, token, keyPair)
    },
  }
  return median(load, runs)
}

/** What an agent asks of the server, over one mutual TLS connection. */
async function* issuance(subject: Subject, { seconds, runs }: Effort): AsyncGenerator<Figure> {
  const { id, connection } = await openAgentSession(subject.server)
  using session = connection
  const entryIds = await createEntries(subject, 100, {
    parentId: id,
    path: '/bench/issue',
    selector: 'uid:4294967294',
  })
  const svid = session.client(SVIDDefinition)
  const csrs = entryIds.map((entryId) => ({ entryId, csr: newCsr() }))
  // A server that reads its entries at intervals does not know these yet.
  for (let settled = false; !settled; ) {
    const { results } = await svid.batchNewX509SVID({ params: csrs })
    settled = results.every(({ status }) => status?.code === 0)
    if (!settled)
      await clock.sleep(Temporal.Duration.from({ milliseconds: 200 }), AbortSignal.timeout(20_000))
  }
  for (const [size, concurrency] of [
    [1, 16],
    [10, 16],
    [100, 4],
  ] as const) {
    const params = csrs.slice(0, size)
    yield await median(
      {
        work: `BatchNewX509SVID, ${size} a call${concurrency === 16 ? '' : `, ${concurrency} in flight`}`,
        pid: subject.server.pid,
        concurrency,
        seconds,
        operations: size,
        async call() {
          const { results } = await svid.batchNewX509SVID({ params })
          if (results.length !== size || results[0]?.status?.code !== 0)
            throw new Error('an SVID was not issued')
        },
      },
      runs,
    )
  }
  const [entryId = ''] = entryIds
  yield await median(
    {
      work: 'NewJWTSVID (server signs)',
      pid: subject.server.pid,
      concurrency: 16,
      seconds,
      async call() {
        await svid.newJWTSVID({ entryId, audience: ['bench'] })
      },
    },
    runs,
  )
}

/** What a workload asks of the agent. This process is the workload: it gets one identity. */
async function* workloadApi(subject: Subject, { seconds, runs }: Effort): AsyncGenerator<Figure> {
  const { agent } = subject
  await createEntries(subject, 1, {
    parentId: agent.id,
    path: '/bench/workload',
    selector: `uid:${process.getuid?.()}`,
  })
  using connection = connectUnix(agent.socket, { clock })
  const shared = connection.client(SpiffeWorkloadAPIDefinition)
  const firstX509 = async (client: typeof shared): Promise<void> => {
    for await (const { svids } of client.fetchX509SVID({}, header)) {
      if (svids.length === 0) throw new Error('no SVID')
      return
    }
  }
  for (let settled = false; !settled; ) {
    settled = await firstX509(shared).then(
      () => true,
      () => false,
    )
    if (!settled)
      await clock.sleep(Temporal.Duration.from({ milliseconds: 200 }), AbortSignal.timeout(20_000))
  }
  const load = { pid: agent.pid, concurrency: 16, seconds }
  yield await median(
    {
      ...load,
      work: 'FetchX509SVID, first message, shared connection',
      call: () => firstX509(shared),
    },
    runs,
  )
  yield await median(
    {
      ...load,
      work: 'FetchX509SVID, first message, a connection each',
      async call() {
        using own = connectUnix(agent.socket, { clock })
        await firstX509(own.client(SpiffeWorkloadAPIDefinition))
      },
    },
    runs,
  )
  yield await median(
    {
      ...load,
      work: 'FetchJWTSVID (agent cache hit)',
      async call() {
        await shared.fetchJWTSVID({ audience: ['bench'], spiffeId: '' }, header)
      },
    },
    runs,
  )
}

/** From the call that creates an entry to the message on an open stream that has its SVID: milliseconds. */
export async function propagation(subject: Subject, times: number): Promise<readonly number[]> {
  using workload = connectUnix(subject.agent.socket, { clock })
  using server = connectUnix(subject.server.socket, { clock })
  const entries = server.client(EntryDefinition)
  const waits: number[] = []
  for (let index = 0; index < times; index++) {
    const stop = new AbortController()
    const messages = workload
      .client(SpiffeWorkloadAPIDefinition)
      .fetchX509SVID({}, { ...header, signal: stop.signal })
      [Symbol.asyncIterator]()
    const known = (await messages.next()).value?.svids.length ?? 0
    const start = performance.now()
    const [id = ''] = await createEntries(subject, 1, {
      parentId: subject.agent.id,
      path: `/bench/propagation-${index}`,
      selector: `uid:${process.getuid?.()}`,
    })
    while (((await messages.next()).value?.svids.length ?? 0) <= known);
    waits.push(performance.now() - start)
    await entries.batchDeleteEntry({ ids: [id] })
    while (((await messages.next()).value?.svids.length ?? 0) > known);
    stop.abort()
  }
  return waits.sort((a, b) => a - b)
}

/** Every row, as it is measured. */
export async function* everything(subject: Subject, effort: Effort): AsyncGenerator<Figure> {
  yield await joinTokenAttestation(subject, effort)
  yield* issuance(subject, effort)
  yield* workloadApi(subject, effort)
}
