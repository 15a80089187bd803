// What operators and verifiers get of an agent.
import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { after, test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { DiagnosisDefinition } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { HealthDefinition } from '#rpc/gen/grpc/health/v1/health.ts'
import { DebugDefinition } from '#rpc/gen/spire/api/agent/debug/v1/debug.ts'
import { LoggerDefinition } from '#rpc/gen/spire/api/agent/logger/v1/logger.ts'
import { LogLevel } from '#rpc/gen/spire/api/types/logger.ts'
import { requestIdOf } from '#rpc/status.ts'
import { LiveAgent, workloadHeader as metadata, ownSelector, Taken } from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'

const server = await LiveServer.start()
after(() => server[Symbol.asyncDispose]())
const agent = await LiveAgent.start(server, {
  settings: 'allow_unauthenticated_verifiers: true\nlog_selectors: ["unix:gid:"]',
})
after(() => agent[Symbol.asyncDispose]())
const parent = await agent.ready()
const diagnosis = agent.adminConnection.client(DiagnosisDefinition)

const near = await server.createEntry({
  parent,
  path: '/near',
  selectors: [ownSelector, 'unix:user:somebody-else'],
})
await server.createEntry({
  parent,
  path: '/far',
  selectors: ['unix:uid:4000000', 'unix:gid:4000000', 'unix:user:nobody-here'],
})
await agent.ready(2)

/** What a call that must be refused was refused with. */
async function refusal(): Promise<AssayError> {
  using stream = new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))
  try {
    await stream.next()
  } catch (error) {
    assert.ok(error instanceof AssayError)
    return error
  }
  throw new Error('the call was answered')
}

test('Diagnosis.Explain tells what a process shows, and what the nearest entries lack', async () => {
  const explained = await diagnosis.explain({ subject: { $case: 'pid', value: process.pid } })
  assert.ok(explained.selectors.includes(ownSelector))
  assert.deepEqual(explained.matches, [])
  assert.equal(explained.entries, 2)
  assert.equal(explained.agent?.state, 'ready')
  const [first, second] = explained.nearMisses
  assert.equal(first?.entryId, near.id)
  assert.deepEqual(first?.missing, ['unix:user:somebody-else'])
  assert.equal(second?.missing.length, 3)
})

test('Diagnosis.Explain by request id tells why a workload was refused, and the workload is told nothing else', async () => {
  const error = await refusal()
  assert.equal(error.code, 'permission-denied')
  const requestId = requestIdOf(error) ?? ''
  assert.equal(error.message, `no identity issued (request ${requestId})`)
  const explained = await diagnosis.explain({ subject: { $case: 'requestId', value: requestId } })
  assert.equal(explained.refusal?.pid, process.pid)
  assert.equal(explained.refusal?.reason, 'no-identity-issued')
  assert.ok(explained.selectors.includes(ownSelector))
  assert.equal(explained.nearMisses[0]?.entryId, near.id)
  const { refusals } = await diagnosis.listRefusals({ limit: 1 })
  assert.equal(refusals[0]?.requestId, requestId)
  const logged = agent.lines.find((line) => line.includes(requestId)) ?? ''
  assert.deepEqual(JSON.parse(logged).selectors, [`unix:gid:${process.getgid?.()}`])
})

test('Diagnosis.Explain by user tells what follows from the user alone', async () => {
  const explained = await diagnosis.explain({ subject: { $case: 'user', value: 'root' } })
  assert.deepEqual(explained.selectors, ['unix:uid:0', 'unix:user:root'])
  for (const value of ['no-such-user', '-s', '']) {
    await assert.rejects(diagnosis.explain({ subject: { $case: 'user', value } }), {
      code: 'not-found',
    })
  }
})

test('Diagnosis.Explain refuses what it cannot find', async () => {
  const missing = [
    { $case: 'pid', value: 2 ** 22 + 1 },
    { $case: 'requestId', value: 'no-such-request' },
  ] as const
  for (const subject of missing) {
    await assert.rejects(diagnosis.explain({ subject }), { code: 'not-found' })
  }
  for (const subject of [{ $case: 'pid', value: 0 } as const, undefined]) {
    await assert.rejects(diagnosis.explain({ subject }), { code: 'invalid-argument' })
  }
  await assert.rejects(diagnosis.listRefusals({ limit: -1 }), { code: 'invalid-argument' })
})

test('Diagnosis.GetStatus counts what the agent holds', async () => {
  using stream = new Taken((signal) => agent.workload.fetchX509Bundles({}, { metadata, signal }))
  await stream.next()
  const status = await agent.status()
  assert.equal(status.entries, 2)
  assert.equal(status.streams, 1)
  assert.equal(status.nodeAttestor, 'ok')
  assert.ok(status.lastSyncAt > 0)
})

test('Debug.GetInfo shows the agent’s own SVID', async () => {
  const info = await agent.adminConnection.client(DebugDefinition).getInfo({})
  assert.equal(`spiffe://example.org${info.svidChain[0]?.id?.path}`, parent)
  assert.ok(info.lastSyncSuccess > 0)
})

test('Logger changes how much is logged, and back', async () => {
  const logger = agent.adminConnection.client(LoggerDefinition)
  const changed = await logger.setLogLevel({ newLevel: LogLevel.ERROR })
  assert.equal(changed.currentLevel, LogLevel.ERROR)
  const before = agent.lines.length
  await refusal()
  assert.equal(agent.lines.length, before)
  assert.equal((await logger.resetLogLevel({})).currentLevel, LogLevel.DEBUG)
  await assert.rejects(logger.setLogLevel({ newLevel: LogLevel.UNSPECIFIED }), {
    code: 'invalid-argument',
  })
})

test('the Workload API is for everybody, administration for its own group', () => {
  const mode = (path: string): number => statSync(path).mode & 0o777
  const admin = join(agent.directory, 'admin', 'admin.sock')
  assert.equal(mode(agent.workloadSocket), 0o777)
  assert.equal(mode(dirname(agent.workloadSocket)), 0o755)
  assert.equal(mode(admin), 0o770)
  assert.equal(mode(dirname(admin)), 0o750)
})

test('operators’ services are not on the socket of the Workload API', async () => {
  await assert.rejects(agent.workloadConnection.client(DiagnosisDefinition).getStatus({}), {
    code: 'unimplemented',
  })
})

test('allow_unauthenticated_verifiers gives the own bundle, and no identity, to everybody', async () => {
  for (const name of ['fetchX509Bundles', 'fetchJWTBundles'] as const) {
    using stream = new Taken<{ bundles: ReadonlyMap<string, Uint8Array> }>((signal) =>
      agent.workload[name]({}, { metadata, signal }),
    )
    assert.deepEqual([...(await stream.next()).bundles.keys()], ['spiffe://example.org'])
  }
  assert.equal((await refusal()).code, 'permission-denied')
  await assert.rejects(agent.workload.fetchJWTSVID({ audience: ['db'] }, { metadata }), {
    code: 'permission-denied',
  })
})

test('Health tells on both sockets whether workloads are served, of the whole agent only', async () => {
  for (const connection of [agent.workloadConnection, agent.adminConnection]) {
    const health = connection.client(HealthDefinition)
    assert.equal((await health.check({ service: '' })).status, 1)
    await assert.rejects(health.check({ service: 'SpiffeWorkloadAPI' }), { code: 'not-found' })
    using stream = new Taken((signal) => health.watch({ service: '' }, { signal }))
    assert.equal((await stream.next()).status, 1)
    using unknown = new Taken((signal) => health.watch({ service: 'x' }, { signal }))
    assert.equal((await unknown.next()).status, 3)
  }
})
