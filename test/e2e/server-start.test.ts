import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { nextTurn } from '#base/event-loop.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { LiveServer } from '../support/live-server.ts'

let directory = ''
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'assay-server-'))
})
after(() => rm(directory, { recursive: true }))

const noon = Temporal.Instant.from('2026-06-01T12:00:00Z')
const hours = (n: number): Temporal.Duration => Temporal.Duration.from({ hours: n })

test('a server that starts again knows its agents, and they know it', async () => {
  let agent: Awaited<ReturnType<LiveServer['attestWith']>>
  {
    await using first = await LiveServer.start({ directory, clock: new FakeClock(noon) })
    const { value } = await first.local.client(AgentDefinition).createJoinToken({ ttl: 60 })
    agent = await first.attestWith(value)
  }
  await using second = await LiveServer.start({ directory, clock: new FakeClock(noon) })
  await second.connect(agent.identity).client(AgentDefinition).postStatus({ agentVersion: '1' })
  assert.equal((await second.datastore.node(agent.id))?.agentVersion, '1')
})

test('a server does not start on a datastore of which any node is of another trust domain', async () => {
  const elsewhere = await mkdtemp(join(tmpdir(), 'assay-server-'))
  {
    await using first = await LiveServer.start({ directory: elsewhere })
    await first.attest()
  }
  await assert.rejects(LiveServer.start({ directory: elsewhere, trustDomain: 'other.org' }), {
    code: 'failed-precondition',
    reason: 'datastore-of-other-trust-domain',
  })
  await rm(elsewhere, { recursive: true })
})

test('a server whose clock has gone back issues nothing, says so, and lets agents in when it is right again', async () => {
  const clock = new FakeClock(noon.subtract(hours(1)))
  await using server = await LiveServer.start({ directory, clock })
  assert.equal(server.server.port, undefined)
  const probe = async (): Promise<{ status: number; body: string }> => {
    const answer = await fetch(`http://127.0.0.1:${server.server.healthPort}/ready`)
    return { status: answer.status, body: await answer.text() }
  }
  const notReady = await probe()
  assert.equal(notReady.status, 503)
  assert.match(notReady.body, /clock/)
  // Reading and administration go on.
  assert.ok((await server.local.client(BundleDefinition).getBundle({})).sequenceNumber > 0n)
  const id = { trustDomain: 'example.org', path: '/a' }
  await assert.rejects(server.local.client(SVIDDefinition).mintJWTSVID({ id, audience: ['a'] }), {
    code: 'unavailable',
  })
  await clock.advance(hours(1))
  while (server.server.port === undefined) {
    await clock.advance(Temporal.Duration.from({ seconds: 10 }))
    await nextTurn()
  }
  await server.attest()
  assert.equal((await probe()).status, 200)
})

test('a server does not start on the datastore of another trust domain', async () => {
  {
    await using server = await LiveServer.start({ directory, clock: new FakeClock(noon) })
    await server.createEntry({
      parent: parseSpiffeId('spiffe://example.org/spire/agent/x'),
      path: '/web',
    })
  }
  await assert.rejects(
    LiveServer.start({
      directory,
      clock: new FakeClock(noon),
      trustDomain: 'other.org',
    }),
    { code: 'failed-precondition', reason: 'datastore-of-other-trust-domain' },
  )
})
