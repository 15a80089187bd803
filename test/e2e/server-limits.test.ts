import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { nextTurn } from '#base/event-loop.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import type { Connection } from '#rpc/client.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { csrOf, LiveServer } from '../support/live-server.ts'

const clock = new FakeClock()
const live = await LiveServer.start({ clock, settings: 'ratelimit: {}' })
after(() => live[Symbol.asyncDispose]())
const second = Temporal.Duration.from({ seconds: 1 })

/** Waits until the call holds on the clock: the limiter is what it can be waiting for. */
async function whileSleeping(more: number): Promise<void> {
  const until = clock.sleeping + more
  while (clock.sleeping < until) await nextTurn()
}

test('attestations of one address wait for one another, a second each', async () => {
  await live.attest()
  const { value } = await live.local.client(AgentDefinition).createJoinToken({ ttl: 600 })
  let done = false
  const waiting = live.attestWith(value).then(() => {
    done = true
  })
  // Its connection has two sleepers, of the preface and of the limiter.
  await whileSleeping(2)
  assert.equal(done, false)
  await clock.advance(second)
  await waiting
})

test('a batch larger than a second’s worth of signatures is refused', async () => {
  await clock.advance(second)
  const agent = await live.attest()
  const csr = csrOf(generateEcKeyPair('ec-p256'))
  const params = Array.from({ length: 501 }, () => ({ entryId: 'none', csr }))
  await assert.rejects(agent.connection.client(SVIDDefinition).batchNewX509SVID({ params }), {
    code: 'resource-exhausted',
    reason: 'rate-limit-burst',
  })
})

test('a request of very many items is refused before it is decoded', async () => {
  await clock.advance(second)
  const agent = await live.attest()
  const params = Array.from({ length: 10_001 }, () => ({}))
  await assert.rejects(agent.connection.client(SVIDDefinition).batchNewX509SVID({ params }), {
    code: 'resource-exhausted',
    reason: 'too-many-fields',
  })
  using call = agent.connection.client(EntryDefinition).syncAuthorizedEntries()
  await call.send({ ids: params.map(() => '') })
  await assert.rejects(call.receive(), {
    code: 'resource-exhausted',
    reason: 'too-many-fields',
  })
})

test('a client without a certificate can send no more than an attestation takes', async () => {
  const ask = (connection: Connection) =>
    connection
      .client(AgentDefinition)
      .banAgent({ id: { trustDomain: '', path: '/'.repeat(200_000) } })
  await assert.rejects(ask(live.connect()), { code: 'resource-exhausted' })
  await clock.advance(second)
  const { identity } = await live.attest()
  await assert.rejects(ask(live.connect(identity)), { code: 'permission-denied' })
})

test('callers on the administration socket are not limited', async () => {
  const mints = live.local.client(SVIDDefinition)
  const id = { trustDomain: 'example.org', path: '/a' }
  await Promise.all(Array.from({ length: 60 }, () => mints.mintJWTSVID({ id, audience: ['a'] })))
})
