import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import type { AgentIdentity } from '../server-client/agent-identity.ts'
import { AgentSvid } from './agent-svid.ts'
import type { SyncEnd } from './sync.ts'

const half = { bytes: (n: number) => new Uint8Array(n).fill(0x80) }
const minutes = (n: number): Temporal.Duration => Temporal.Duration.from({ minutes: n })
const { privateKey: key } = generateEcKeyPair('ec-p256')

function bench() {
  const clock = new FakeClock()
  const now = (): number => clock.now().epochMilliseconds / 1000
  const identity = (): AgentIdentity => ({
    spiffeId: parseSpiffeId('spiffe://example.org/spire/agent/tpm/1'),
    key,
    certificates: [],
    issuedAtSeconds: now(),
    expiresAtSeconds: now() + 3600,
    canReattest: true,
  })
  const server: { failure: Error | undefined } = { failure: undefined }
  const renewedAt: number[] = []
  let attempts = 0
  const svid = new AgentSvid({
    renew: async () => {
      attempts += 1
      if (server.failure !== undefined) throw server.failure
      return identity()
    },
    onRenewed: async () => {
      renewedAt.push(now())
    },
    clock,
    random: half,
    log: silentLog,
  })
  const stop = new AbortController()
  let end: SyncEnd | undefined
  const start = now()
  const keeping = svid.keep(identity(), stop.signal).then(
    (why) => {
      end = why
    },
    () => {},
  )
  return {
    clock,
    svid,
    server,
    renewedMinutes: () => renewedAt.map((at) => Math.round((at - start) / 60)),
    /** Unix time in milliseconds, so many minutes after the beginning. */
    at: (minute: number) => (start + minute * 60) * 1000,
    attempts: () => attempts,
    end: () => end,
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('the test is over'))
      await keeping
    },
  }
}

/** Lets everything happen that waits for nothing but its turn. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 50; turn += 1) await Promise.resolve()
}

test('AgentSvid.keep() renews at half of each life', async () => {
  await using it = bench()
  await it.clock.advance(minutes(62))
  assert.deepEqual(it.renewedMinutes(), [30, 60])
})

test('AgentSvid.keep() goes on trying, and asks for another proof once the SVID has expired', async () => {
  await using it = bench()
  it.server.failure = new AssayError('unavailable', 'nobody is there')
  await it.clock.advance(minutes(59))
  assert.ok(it.attempts() > 5)
  assert.equal(it.end(), undefined)
  await it.clock.advance(minutes(4))
  assert.equal(it.end(), 'must-reattest')
})

test('AgentSvid.keep() ends when the server says that the node is banned', async () => {
  await using it = bench()
  it.server.failure = new AssayError('permission-denied', 'no', { reason: 'agent-banned' })
  await it.clock.advance(minutes(31))
  assert.equal(it.end(), 'banned')
  assert.equal(it.attempts(), 1)
})

test('AgentSvid.renewBy() does not wait for half of the life', async () => {
  await using it = bench()
  it.svid.renewBy(0)
  await turns()
  assert.deepEqual(it.renewedMinutes(), [0])
})

test('AgentSvid.renewBy() defers nothing: the earliest of its times and half of the life counts', async () => {
  await using it = bench()
  it.svid.renewBy(it.at(20))
  it.svid.renewBy(it.at(25))
  await turns()
  await it.clock.advance(minutes(21))
  assert.deepEqual(it.renewedMinutes(), [20])
  it.svid.renewBy(it.at(59))
  await turns()
  await it.clock.advance(minutes(30))
  assert.deepEqual(it.renewedMinutes(), [20, 50])
})

test('AgentSvid.keep() of another identity forgets what was said of the one before', async () => {
  await using one = bench()
  one.server.failure = new AssayError('permission-denied', 'no', { reason: 'agent-not-active' })
  one.svid.renewBy(one.at(0))
  await turns()
  assert.equal(one.end(), 'must-reattest')
  assert.equal(one.attempts(), 1)
  const stop = new AbortController()
  const now = one.at(0) / 1000
  const again = one.svid.keep(
    {
      spiffeId: parseSpiffeId('spiffe://example.org/spire/agent/tpm/1'),
      key,
      certificates: [],
      issuedAtSeconds: now,
      expiresAtSeconds: now + 3600,
      canReattest: true,
    },
    stop.signal,
  )
  await turns()
  assert.equal(one.attempts(), 1, 'a fresh identity is not replaced at once')
  stop.abort(new Error('the test is over'))
  await assert.rejects(again, /the test is over/)
})

test('AgentSvid.settled() waits for a renewal that is under way, and generation counts those that came', async () => {
  await using one = bench()
  await one.svid.settled()
  assert.equal(one.svid.generation, 0)
  one.svid.renewBy(one.at(0))
  await turns()
  await one.svid.settled()
  assert.equal(one.svid.generation, 1)
  one.server.failure = new Error('away')
  one.svid.renewBy(one.at(0))
  await turns()
  await one.svid.settled()
  assert.equal(one.svid.generation, 1)
})
