import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from './fake-clock.ts'
import { type LeftOut, LineLimit } from './line-limit.ts'

const seconds = (count: number) => Temporal.Duration.from({ seconds: count })

function started(bounds = { perSource: 2, total: 5 }) {
  const clock = new FakeClock()
  const told: LeftOut[] = []
  const limit = new LineLimit({ clock, bounds, onLeftOut: (leftOut) => told.push(leftOut) })
  return { clock, told, limit }
}

test('LineLimit admits so many lines of a source in ten seconds, and tells how many it left out', async () => {
  const { clock, told, limit } = started()
  using _closed = limit
  const ask = () => [1, 2, 3, 4].map(() => limit.admits('loud'))
  assert.deepEqual(ask(), [true, true, false, false])
  assert.equal(limit.admits('quiet'), true)
  assert.deepEqual(told, [])
  await clock.advance(seconds(10))
  assert.deepEqual(told, [{ lines: 2, seconds: 10, sources: { loud: 2 } }])
  assert.deepEqual(ask(), [true, true, false, false])
})

test('LineLimit bounds all sources together, however many they are', async () => {
  const { clock, told, limit } = started()
  using _closed = limit
  const admitted = Array.from({ length: 1000 }, (_, i) => limit.admits(`${i}`)).filter(Boolean)
  assert.equal(admitted.length, 5)
  for (let i = 0; i < 9; i++) limit.admits('7')
  await clock.advance(seconds(10))
  const [leftOut] = told
  assert.equal(leftOut?.lines, 1004)
  assert.equal(Object.keys(leftOut.sources).length, 5)
  assert.deepEqual([leftOut.sources['others'], leftOut.sources['7']], [990, 10])
})

test('LineLimit goes on after the clock was set back, and tells the rest when it is closed', () => {
  let nowMs = 1_000_000
  const clock = new FakeClock()
  const told: LeftOut[] = []
  const limit = new LineLimit({
    clock: {
      now: () => Temporal.Instant.fromEpochMilliseconds(nowMs),
      sleep: clock.sleep.bind(clock),
    },
    bounds: { perSource: 1, total: 5 },
    onLeftOut: (leftOut) => told.push(leftOut),
  })
  assert.deepEqual([limit.admits('a'), limit.admits('a')], [true, false])
  nowMs -= 500_000
  assert.deepEqual([limit.admits('a'), limit.admits('a')], [true, false])
  assert.equal(told.length, 1)
  limit[Symbol.dispose]()
  assert.equal(told.length, 2)
  assert.equal(clock.sleeping, 0)
})
