import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { agentEntry } from './fake-entry.ts'
import { type JwtSvid, JwtSvidCache } from './jwt-svid-cache.ts'
import type { AuthorityTrust } from './x509-svid.ts'

const never = new AbortController().signal
const seconds = (n: number): Temporal.Duration => Temporal.Duration.from({ seconds: n })
const half = { bytes: (n: number) => new Uint8Array(n).fill(0x80) }
const ttlSeconds = 300

function bench(maxSize = 100) {
  const clock = new FakeClock()
  const audiences: string[] = []
  const server: { answer: 'at once' | 'never' | Error; trust: AuthorityTrust } = {
    answer: 'at once',
    trust: 'trusted',
  }
  const cache = new JwtSvidCache({
    issue: async ({ entryId, audience }, signal): Promise<JwtSvid> => {
      audiences.push(audience.join(','))
      if (server.answer === 'never') {
        await new Promise((_, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason), { once: true })
        })
      }
      if (server.answer instanceof Error) throw server.answer
      const now = Math.trunc(clock.now().epochMilliseconds / 1000)
      return {
        token: `${entryId}-${audiences.length}`,
        keyId: 'key-1',
        issuedAtSeconds: now,
        expiresAtSeconds: now + ttlSeconds,
      }
    },
    trustOf: () => server.trust,
    maxSize,
    clock,
    random: half,
    log: silentLog,
  })
  return { clock, cache, audiences, server }
}

test('JwtSvidCache.get() gives the same token until half of its life', async () => {
  const { clock, cache } = bench()
  const entry = agentEntry('a')
  const first = await cache.get(entry, ['x'], never)
  await clock.advance(seconds(149))
  assert.equal(await cache.get(entry, ['x'], never), first)
  await clock.advance(seconds(2))
  assert.notEqual(await cache.get(entry, ['x'], never), first)
})

test('JwtSvidCache.get() keeps audiences apart, whatever their order', async () => {
  const { cache, audiences } = bench()
  const entry = agentEntry('a')
  const first = await cache.get(entry, ['x', 'y'], never)
  assert.equal(await cache.get(entry, ['y', 'x', 'x'], never), first)
  assert.notEqual(await cache.get(entry, ['x'], never), first)
  assert.notEqual(await cache.get(agentEntry('b'), ['x', 'y'], never), first)
  assert.deepEqual(audiences, ['x,y', 'x', 'x,y'])
})

test('JwtSvidCache.get() asks the server once for all who wait for the same token', async () => {
  const { cache, audiences } = bench()
  const entry = agentEntry('a')
  const tokens = await Promise.all([1, 2, 3].map(() => cache.get(entry, ['x'], never)))
  assert.equal(new Set(tokens).size, 1)
  assert.equal(audiences.length, 1)
})

test('JwtSvidCache.get() falls back on the held token when the server refuses, and never once it has expired', async () => {
  const { clock, cache, server } = bench()
  const entry = agentEntry('a')
  const first = await cache.get(entry, ['x'], never)
  server.answer = new Error('unavailable')
  await clock.advance(seconds(200))
  assert.equal(await cache.get(entry, ['x'], never), first)
  await clock.advance(seconds(101))
  await assert.rejects(cache.get(entry, ['x'], never), /unavailable/)
})

test('JwtSvidCache.get() gives the held token after 25 ms when the server hangs', async () => {
  const { clock, cache, server } = bench()
  const entry = agentEntry('a')
  const first = await cache.get(entry, ['x'], never)
  server.answer = 'never'
  await clock.advance(seconds(200))
  const getting = cache.get(entry, ['x'], never)
  await clock.advance(Temporal.Duration.from({ milliseconds: 26 }))
  assert.equal(await getting, first)
})

test('JwtSvidCache.get() gives up on the server after 30 seconds', async () => {
  const { clock, cache, server } = bench()
  server.answer = 'never'
  const getting = cache.get(agentEntry('a'), ['x'], never)
  const rejected = assert.rejects(getting, /30 seconds/)
  await clock.advance(seconds(31))
  await rejected
})

test('JwtSvidCache.get() never holds a token with a jti', async () => {
  const { cache, audiences } = bench()
  const entry = agentEntry('a', { jwtSvidIncludeJti: true })
  const first = await cache.get(entry, ['x'], never)
  assert.notEqual(await cache.get(entry, ['x'], never), first)
  assert.equal(audiences.length, 2)
  assert.equal(cache.size, 0)
})

test('JwtSvidCache.get() asks anew when the entry has changed', async () => {
  const { cache } = bench()
  const first = await cache.get(agentEntry('a'), ['x'], never)
  const revised = agentEntry('a', { revisionNumber: 1 })
  assert.notEqual(await cache.get(revised, ['x'], never), first)
})

test('JwtSvidCache gives up the least recently used token above its size', async () => {
  const { cache } = bench(2)
  const entry = agentEntry('a')
  const x = await cache.get(entry, ['x'], never)
  const y = await cache.get(entry, ['y'], never)
  await cache.get(entry, ['x'], never)
  await cache.get(entry, ['z'], never)
  assert.equal(await cache.get(entry, ['x'], never), x)
  assert.notEqual(await cache.get(entry, ['y'], never), y)
  assert.equal(cache.size, 2)
})

test('JwtSvidCache.prune() forgets tokens of tainted keys and of entries that are gone', async () => {
  const { cache, server } = bench()
  await cache.get(agentEntry('a'), ['x'], never)
  await cache.get(agentEntry('b'), ['x'], never)
  cache.prune((id) => id === 'a')
  assert.equal(cache.size, 1)
  for (const trust of ['tainted', 'unknown'] as const) {
    server.trust = 'trusted'
    await cache.get(agentEntry('b'), ['x'], never)
    server.trust = trust
    cache.prune(() => false)
    assert.equal(cache.size, 0, trust)
  }
})

test('JwtSvidCache.get() does not hold a token whose key was tainted while it was on its way', async () => {
  const { cache, server } = bench()
  const asked = cache.get(agentEntry('a'), ['x'], never)
  server.trust = 'tainted'
  await asked
  assert.equal(cache.size, 0)
})
