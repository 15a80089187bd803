import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { Metrics } from '#telemetry/metrics.ts'
import { AgentStatus } from '../status.ts'
import { agentEntry } from './fake-entry.ts'
import { Identities } from './identities.ts'
import { followServer, type SyncEnd, syncEndOf } from './sync.ts'
import type { Update } from './update.ts'

const never = new AbortController().signal

function update(ids: readonly string[], over: Partial<Update> = {}): Update {
  return {
    source: 'feed',
    revision: 1n,
    complete: true,
    entries: ids.map((id) => agentEntry(id, { disableX509SvidPrefetch: true })),
    removedEntryIds: [],
    bundle: {
      trustDomain: parseTrustDomain('example.org'),
      x509Authorities: [],
      jwtAuthorities: [],
      refreshHintSeconds: 0,
      sequenceNumber: 1n,
    },
    federatedBundles: [],
    removedFederated: [],
    serverTimeMs: undefined,
    replacementSpreadSeconds: 0,
    ...over,
  }
}

type Turn = readonly Update[] | Error

/** Follows a server that answers each connection as `turns` say, and bans the agent at the end of them. */
async function follow(turns: readonly Turn[]) {
  const clock = new FakeClock()
  const status = new AgentStatus()
  const unreachable = async (): Promise<never> => {
    throw new AssayError('unavailable', 'nobody is there')
  }
  const identities = new Identities({
    issuer: {
      x509Signer: { sign: unreachable },
      issueJwtSvid: unreachable,
      pqX509Signer: { sign: unreachable },
      issuePqJwtSvid: unreachable,
      fetchBundle: unreachable,
    },
    onOwnBundle: () => {},
    onHoldings: () => {},
    x509SvidCacheMaxSize: 10,
    jwtSvidCacheMaxSize: 10,
    clock,
    random: new SystemRandom(),
    log: silentLog,
  })
  const states: string[] = []
  const feeds: string[] = []
  const warnings: string[] = []
  const log = { ...silentLog, warn: (_: object, message: string) => void warnings.push(message) }
  status.onChange(() => states.push(`${status.state} ${status.detail}`.trim()))
  const left = [...turns]
  const watch = async function* (): AsyncGenerator<Update> {
    const turn = left.shift()
    if (turn === undefined) {
      throw new AssayError('permission-denied', 'no', { reason: 'agent-banned' })
    }
    if (turn instanceof Error) throw turn
    yield* turn
  }
  let end: SyncEnd | undefined
  const following = followServer(
    {
      watch,
      report: async (signal) => {
        feeds.push('open')
        signal.addEventListener('abort', () => feeds.push('ended'), { once: true })
      },
      onLost: () => feeds.push('lost'),
      identities,
      status,
      metrics: new Metrics(),
      clock,
      random: new SystemRandom(),
      log,
    },
    never,
  ).then((why) => {
    end = why
  })
  while (end === undefined) {
    if (clock.sleeping === 0) await Promise.resolve()
    else await clock.advance(Temporal.Duration.from({ seconds: 30 }))
  }
  await following
  const entries = [...identities.entries].map(({ id }) => id).sort()
  return { end, entries, states, feeds, warnings, identities, status, unused: left.length }
}

test('followServer() takes complete and partial updates over', async () => {
  const partial = update(['c'], { complete: false, removedEntryIds: ['a'], revision: 7n })
  const { entries, identities, end } = await follow([[update(['a', 'b']), partial]])
  assert.deepEqual(entries, ['b', 'c'])
  assert.equal(identities.revision, 7n)
  assert.equal(end, 'banned')
})

test('followServer() does not believe a complete update that takes away a fifth of all entries, until it comes twice', async () => {
  const all = ['a', 'b', 'c', 'd']
  const doubted = await follow([[update(all)], [update(['a'])], [update(all)]])
  assert.deepEqual(doubted.entries, all)
  const confirmed = await follow([[update(all)], [update(['a'])], [update(['a'])]])
  assert.deepEqual(confirmed.entries, ['a'])
})

test('followServer() believes a partial update that takes away everything', async () => {
  const { entries } = await follow([
    [update(['a', 'b']), update([], { complete: false, removedEntryIds: ['a', 'b'] })],
  ])
  assert.deepEqual(entries, [])
})

test('followServer() keeps what it holds while the server is away, and says that it is', async () => {
  const away = new AssayError('unavailable', 'connection refused')
  const { entries, states, feeds } = await follow([[update(['a'])], away, away])
  assert.equal(feeds.filter((what) => what === 'lost').length, 1)
  assert.deepEqual(entries, ['a'])
  assert.ok(states.includes('ready'))
  assert.ok(states.includes('degraded no word of the server: connection refused'))
})

test('followServer() warns of a server that is away, once, and not of one that ends everything', async () => {
  const away = new AssayError('unavailable', 'connection refused')
  const { warnings } = await follow([[update(['a'])], away, away])
  assert.equal(warnings.length, 1)
  assert.deepEqual((await follow([[update(['a'])], [update(['a'])]])).warnings, [])
})

test('followServer() tells a clock that is off from a certificate that is bad', async () => {
  const expired = new AssayError('unavailable', 'the certificate has expired', {
    reason: 'certificate-expired',
  })
  const { states } = await follow([expired])
  assert.match(states.at(-2) ?? states.join(), /clock of this node/)
})

test('followServer() says how far the clock is off, and stops saying so when it is right again', async () => {
  const nowMs = new FakeClock().now().epochMilliseconds
  const { states, status } = await follow([
    [update(['a'], { serverTimeMs: nowMs + 3_600_000 }), update(['a'], { serverTimeMs: nowMs })],
  ])
  assert.equal(states[0], "degraded the clock of this node is 1h00m behind the server's")
  assert.equal(states[1], 'ready')
  assert.equal(status.clockOffsetMs, 0)
})

test('followServer() has the agent report over each feed, and never where there is none', async () => {
  const twice = [update(['a']), update([], { complete: false, revision: 2n })]
  const { feeds } = await follow([twice, new AssayError('unavailable', 'away'), twice])
  assert.deepEqual(feeds, ['open', 'ended', 'lost', 'open', 'ended'])
  const polled = update(['a'], { source: 'poll', revision: 0n })
  assert.deepEqual((await follow([[polled, polled]])).feeds, [])
})

test('syncEndOf() knows the refusals that end everything', () => {
  const because = (reason: string): SyncEnd | undefined =>
    syncEndOf(new AssayError('permission-denied', 'no', { reason }))
  assert.equal(because('agent-banned'), 'banned')
  for (const reason of [
    'agent-expired',
    'agent-not-attested',
    'agent-not-active',
    'agent-must-reattest',
  ]) {
    assert.equal(because(reason), 'must-reattest')
  }
  assert.equal(because('anything'), undefined)
  assert.equal(syncEndOf(new Error('agent-banned')), undefined)
})
