// From the message that a workload shows its owner to the line of the agent and to that of the server.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { type Clock, SystemClock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import {
  eventually,
  LiveAgent,
  workloadHeader as metadata,
  ownSelector,
  Taken,
} from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'

/** A server's clock that can be set back; then it issues nothing. */
class ShiftedClock implements Clock {
  readonly #clock = new SystemClock()
  shift = Temporal.Duration.from({ seconds: 0 })

  now(): Temporal.Instant {
    return this.#clock.now().add(this.shift)
  }

  sleep(duration: Temporal.Duration, signal: AbortSignal): Promise<void> {
    return this.#clock.sleep(duration, signal)
  }
}

const clock = new ShiftedClock()
const server = await LiveServer.start({ clock })
after(() => server[Symbol.asyncDispose]())
const agent = await LiveAgent.start(server)
after(() => agent[Symbol.asyncDispose]())
const parent = await agent.ready()
const signed = await server.createEntry({ parent, path: '/signed', selectors: [ownSelector] })
await agent.ready(1)

/** What an operator would see at the default level. */
const linesWith = (lines: readonly string[], id: string) =>
  lines
    .filter((line) => line.includes(id))
    .map((line): Record<string, unknown> => JSON.parse(line))
    .filter(({ level }) => level !== 'debug')

/** The two ids in a message that a workload was given. */
function idsIn(error: unknown): readonly [string, string] {
  assert.ok(error instanceof AssayError)
  const [, ours, servers] =
    /\(request ([0-9a-f-]{36}), at the server ([0-9a-f-]{36})\)$/.exec(error.message) ?? []
  assert.ok(ours !== undefined && servers !== undefined, error.message)
  return [ours, servers]
}

const failureOf = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    () => assert.fail('it was not refused'),
    (error: unknown) => error,
  )

async function fetchX509(): Promise<unknown> {
  using stream = new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))
  return await stream.next()
}

/** Waits until the agent has so many entries. */
const heard = (entries: number) =>
  eventually(async () => (await agent.status()).entries === entries || undefined, 'the change')

/** The id that was shown finds one line of the agent, which names the one of the server. */
function assertFound(error: unknown, method: string): void {
  const [ours, servers] = idsIn(error)
  const [atAgent, ...moreAtAgent] = linesWith(agent.lines, ours)
  assert.deepEqual(moreAtAgent, [])
  assert.equal(atAgent?.['message'], 'a call of the Workload API is refused')
  assert.equal(atAgent['serverRequestId'], servers)
  const [atServer, ...moreAtServer] = linesWith(server.lines, servers)
  assert.deepEqual(moreAtServer, [])
  assert.equal(atServer?.['action'], `/spire.api.server.svid.v1.SVID/${method}`)
  assert.equal(atServer['caller'], parent)
}

test('a workload that gets no JWT-SVID is told ids that find one line of the agent and one of the server', async () => {
  clock.shift = Temporal.Duration.from({ minutes: -30 })
  const call = agent.workload.fetchJWTSVID({ audience: ['a'] }, { metadata })
  assertFound(await failureOf(call), 'NewJWTSVID')
})

test('a workload that gets no X.509-SVID is told ids that find one line of the agent and one of the server', async () => {
  await server.local.client(EntryDefinition).batchDeleteEntry({ ids: [signed.id] })
  await heard(0)
  await server.createEntry({ parent, path: '/unsigned', selectors: [ownSelector] })
  await heard(1)
  assertFound(await failureOf(fetchX509()), 'BatchNewX509SVID')
})

test('a workload that no entry matches is told one id, and the server is not concerned', async () => {
  clock.shift = Temporal.Duration.from({ minutes: 0 })
  const { entries } = await server.local.client(EntryDefinition).listEntries({})
  await server.local.client(EntryDefinition).batchDeleteEntry({ ids: entries.map(({ id }) => id) })
  await heard(0)
  const error = await failureOf(fetchX509())
  assert.ok(error instanceof AssayError)
  const [, id = ''] = /^no identity issued \(request ([0-9a-f-]{36})\)$/.exec(error.message) ?? []
  assert.equal(linesWith(agent.lines, id).length, 1)
  assert.equal(linesWith(server.lines, id).length, 0)
})

test('workloads that are refused in a loop do not fill the log, and what has no line is counted', async () => {
  const refused = () =>
    agent.lines.filter((line) => line.includes('a call of the Workload API is refused')).length
  const before = refused()
  for (let i = 0; i < 100; i++) await failureOf(fetchX509())
  assert.ok(refused() - before <= 40, 'at most 20 in each of two windows')
})
