import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { Deadlines } from './deadlines.ts'

const ms = (milliseconds: number) => Temporal.Duration.from({ milliseconds })

test('Deadlines expires each wait once, when its own time has passed', async () => {
  const clock = new FakeClock()
  const deadlines = new Deadlines(clock, new AbortController().signal)
  const expired: string[] = []
  deadlines.start(1000, () => expired.push('long'))
  deadlines.start(300, () => expired.push('short'))
  await clock.advance(ms(299))
  assert.deepEqual(expired, [])
  await clock.advance(ms(451))
  assert.deepEqual(expired, ['short'])
  await clock.advance(ms(5000))
  assert.deepEqual(expired, ['short', 'long'])
})

test('Deadlines never expires a wait that was cancelled', async () => {
  const clock = new FakeClock()
  const deadlines = new Deadlines(clock, new AbortController().signal)
  const cancel = deadlines.start(250, () => assert.fail('expired'))
  cancel()
  await clock.advance(ms(1000))
})

test('Deadlines holds no timer while nothing waits, and starts again', async () => {
  const clock = new FakeClock()
  const deadlines = new Deadlines(clock, new AbortController().signal)
  let expired = 0
  deadlines.start(250, () => expired++)
  await clock.advance(ms(250))
  assert.equal(clock.sleeping, 0)
  deadlines.start(250, () => expired++)
  assert.equal(clock.sleeping, 1)
  await clock.advance(ms(250))
  assert.equal(expired, 2)
})

test('Deadlines lets a wait started by an expiry run its own time', async () => {
  const clock = new FakeClock()
  const deadlines = new Deadlines(clock, new AbortController().signal)
  let expired = 0
  deadlines.start(250, () => deadlines.start(500, () => expired++))
  await clock.advance(ms(749))
  assert.equal(expired, 0)
  await clock.advance(ms(251))
  assert.equal(expired, 1)
})

test('Deadlines stops when its signal aborts', async () => {
  const clock = new FakeClock()
  const stop = new AbortController()
  const deadlines = new Deadlines(clock, stop.signal)
  deadlines.start(250, () => assert.fail('expired'))
  stop.abort()
  await clock.advance(ms(1000))
  assert.equal(clock.sleeping, 0)
})
