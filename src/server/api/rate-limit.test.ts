import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { maxSources, maxWaitSeconds, RateLimiter } from './rate-limit.ts'

const signal = new AbortController().signal
const ms = (milliseconds: number): Temporal.Duration => Temporal.Duration.from({ milliseconds })

test('RateLimiter.take() lets a burst through and makes the next call wait its turn', async () => {
  const clock = new FakeClock()
  const limiter = new RateLimiter({ perSecond: 2, clock })
  await limiter.take('a', { count: 2, signal })
  let done = false
  const waiting = limiter.take('a', { count: 1, signal }).then(() => {
    done = true
  })
  assert.equal(clock.sleeping, 1)
  await clock.advance(ms(499))
  assert.equal(done, false)
  await clock.advance(ms(1))
  await waiting
  assert.equal(done, true)
})

test('RateLimiter.take() counts each source apart', async () => {
  const clock = new FakeClock()
  const limiter = new RateLimiter({ perSecond: 1, clock })
  await limiter.take('a', { count: 1, signal })
  await limiter.take('b', { count: 1, signal })
  assert.equal(clock.sleeping, 0)
})

test('RateLimiter.take() refuses more than a second’s worth at once', async () => {
  const limiter = new RateLimiter({ perSecond: 500, clock: new FakeClock() })
  await assert.rejects(limiter.take('a', { count: 501, signal }), {
    code: 'resource-exhausted',
    reason: 'rate-limit-burst',
  })
})

test('RateLimiter.take() refuses a call that would wait too long', async () => {
  const clock = new FakeClock()
  const limiter = new RateLimiter({ perSecond: 1, clock })
  const waiting: Promise<void>[] = []
  for (let i = 0; i <= maxWaitSeconds; i++) waiting.push(limiter.take('a', { count: 1, signal }))
  await assert.rejects(limiter.take('a', { count: 1, signal }), { reason: 'rate-limit' })
  await clock.advance(ms(maxWaitSeconds * 1000))
  await Promise.all(waiting)
})

test('RateLimiter.take() gives the tokens of a cancelled call back', async () => {
  const clock = new FakeClock()
  const limiter = new RateLimiter({ perSecond: 1, clock })
  await limiter.take('a', { count: 1, signal })
  const cancel = new AbortController()
  const cancelled = limiter.take('a', { count: 1, signal: cancel.signal })
  cancel.abort(new Error('gone'))
  await assert.rejects(cancelled, /gone/)
  const next = limiter.take('a', { count: 1, signal })
  await clock.advance(ms(1000))
  await next
})

test('RateLimiter remembers a bounded number of sources', async () => {
  const clock = new FakeClock()
  const limiter = new RateLimiter({ perSecond: 1, clock })
  for (let i = 0; i < maxSources + 100; i++) {
    void limiter.take(`source ${i}`, { count: 1, signal }).catch(() => {})
  }
  assert.ok(limiter.sources <= maxSources + 1)
  await clock.advance(ms(200_000))
  await limiter.take('new', { count: 1, signal })
  assert.ok(limiter.sources < 10, 'idle sources are forgotten')
})
