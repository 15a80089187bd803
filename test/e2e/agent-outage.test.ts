// R17: the server is away for half of an SVID's life, for all of it, and comes back.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { parseCertificate, splitCertificates } from '#pki/certificate.ts'
import type { X509SVIDResponse } from '#rpc/gen/spiffe/workload/workload.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import {
  eventually,
  LiveAgent,
  workloadHeader as metadata,
  ownSelector,
  passTime,
  Taken,
} from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'
import { TcpGate } from '../support/tcp-gate.ts'

const clock = new FakeClock()
const server = await LiveServer.start({
  clock,
  settings: 'ratelimit: { attestation: false }\nagent_ttl: 4h\nca_ttl: 72h',
})
after(() => server[Symbol.asyncDispose]())
const gate = await TcpGate.to(server.server.port ?? 0)
after(() => gate[Symbol.asyncDispose]())
const agent = await LiveAgent.start(server, {
  clock,
  port: gate.port,
  settings: 'telemetry: { prometheus: { port: 0 } }',
})
after(() => agent[Symbol.asyncDispose]())
const parent = await agent.ready()
await server.createEntry({ parent, path: '/web', selectors: [ownSelector] })
await agent.ready(1)

const nowSeconds = (): number => clock.now().epochMilliseconds / 1000

function expiryOf({ svids }: X509SVIDResponse): number {
  const [leaf] = splitCertificates(svids[0]?.x509Svid ?? new Uint8Array())
  return leaf === undefined ? 0 : parseCertificate(leaf).notAfterSeconds
}

/** The value of a metric of the agent; undefined: it has none. */
async function metric(series: string): Promise<number | undefined> {
  const answer = await fetch(`http://127.0.0.1:${agent.agent.metricsPort}/metrics`)
  const line = (await answer.text()).split('\n').find((one) => one.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length))
}

const firstExpiry = 'assay_expiry_timestamp_seconds{what="workload-svid"}'
const lastSync = 'assay_last_sync_timestamp_seconds'

const x509 = () => new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))

async function fetchX509(): Promise<X509SVIDResponse> {
  using stream = x509()
  return await stream.next()
}

/** Waits until the agent follows the server again. */
async function followed(): Promise<void> {
  await eventually(async () => {
    await clock.advance(Temporal.Duration.from({ milliseconds: 20 }))
    return (await agent.status()).state === 'ready' ? true : undefined
  }, 'the server')
}

test('R17 an agent whose server is away serves what it holds, never what has expired, and recovers', async (t) => {
  using stream = x509()
  const first = await stream.next()
  const expiresAt = expiryOf(first)
  assert.ok(expiresAt > nowSeconds() + 3500)

  const syncedAt = (await metric(lastSync)) ?? 0
  assert.ok(Math.abs(nowSeconds() - syncedAt) < 60)
  assert.equal(await metric(firstExpiry), expiresAt)
  assert.ok(Math.abs((await metric('assay_clock_offset_seconds')) ?? 99) < 1)
  await eventually(async () => {
    await clock.advance(Temporal.Duration.from({ milliseconds: 50 }))
    return (await metric('assay_report_state{state="taken"}')) === 1 ? true : undefined
  }, 'the report')
  assert.ok(
    nowSeconds() - ((await metric('assay_rotation_timestamp_seconds{what="agent-svid"}')) ?? 0) <
      60,
  )
  assert.equal(await metric('assay_datastore_up'), undefined, 'an agent has no datastore')

  await t.test('for more than half of an SVID’s life workloads notice nothing', async () => {
    gate.shut()
    assert.ok(await stream.isSilentWhile(() => passTime(clock, 45)))
    assert.equal(expiryOf(await fetchX509()), expiresAt)
    const status = await agent.status()
    assert.equal(status.state, 'degraded')
    assert.match(status.detail, /no word of the server/)
    assert.equal(await metric('assay_server_reachable'), 0)
    assert.equal(await metric('assay_report_state{state="taken"}'), 0)
    assert.equal(await metric(lastSync), syncedAt)
    assert.equal(await metric(firstExpiry), expiresAt)
  })

  await t.test('when it expires streams end as UNAVAILABLE, and calls are refused so', async () => {
    const ended = assert.rejects(stream.next(), { code: 'unavailable' })
    while (nowSeconds() < expiresAt) await passTime(clock, 1)
    await ended
    await assert.rejects(fetchX509(), { code: 'unavailable', reason: 'x509-svid-unavailable' })
    assert.equal(await metric(firstExpiry), undefined)
  })

  await t.test('once the server is back there is a new SVID within 30 s', async () => {
    gate.open()
    const from = nowSeconds()
    const back = await eventually(async () => {
      await clock.advance(Temporal.Duration.from({ milliseconds: 25 }))
      return await fetchX509().catch(() => undefined)
    }, 'a new SVID')
    assert.ok(expiryOf(back) > expiresAt)
    assert.ok(nowSeconds() - from < 30)
    await followed()
    assert.ok(nowSeconds() - from < 60)
  })
})

test('R17 a server that hangs is noticed, and cached tokens are given out meanwhile', async () => {
  const ask = () => agent.workload.fetchJWTSVID({ audience: ['db'] }, { metadata })
  const [held] = (await ask()).svids
  gate.silence()
  await passTime(clock, 3)
  // The held token is past half of its life, and the server does not answer.
  const asked = ask()
  const [again] = (
    await eventually(async () => {
      await clock.advance(Temporal.Duration.from({ milliseconds: 5 }))
      return await Promise.race([asked, Promise.resolve(undefined)])
    }, 'the held token')
  ).svids
  assert.equal(again?.svid, held?.svid)
  gate.shut()
  gate.open()
  await followed()
})

test('the agent extends its own SVID before it expires', async () => {
  const { agentSvidExpiresAt } = await agent.status()
  assert.ok(agentSvidExpiresAt > nowSeconds())
  await eventually(async () => {
    await passTime(clock, 5)
    return (await agent.status()).agentSvidExpiresAt > agentSvidExpiresAt ? true : undefined
  }, 'a new SVID of the agent')
  const { agents } = await server.local.client(AgentDefinition).listAgents({})
  assert.equal(agents.length, 1)
  await server.createEntry({ parent, path: '/later', selectors: [ownSelector] })
  await eventually(async () => {
    // What waits between two attempts waits by this clock.
    await clock.advance(Temporal.Duration.from({ milliseconds: 20 }))
    const { state, entries } = await agent.status()
    return state === 'ready' && entries >= 2 ? true : undefined
  }, 'the later entry')
})
