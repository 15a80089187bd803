import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SystemClock } from './clock.ts'
import { AssayError } from './errors.ts'
import { FakeClock } from './fake-clock.ts'
import { runTasks } from './tasks.ts'

const minutes = (n: number): Temporal.Duration => Temporal.Duration.from({ minutes: n })

test('runTasks() aborts the other tasks when one fails', async () => {
  const clock = new FakeClock()
  let stopped = false
  const failing = runTasks(new AbortController().signal, [
    async (signal) => {
      await clock.sleep(minutes(1), signal)
      throw new AssayError('unavailable', 'cannot reach the datastore')
    },
    async (signal) => {
      signal.addEventListener('abort', () => {
        stopped = true
      })
      await clock.sleep(minutes(60), signal)
    },
  ])
  assert.equal(clock.sleeping, 2)
  const rejected = assert.rejects(failing, { code: 'unavailable' })
  await clock.advance(minutes(1))
  await rejected
  assert.equal(stopped, true)
})

test('runTasks() ends cleanly when its signal aborts', async () => {
  const clock = new FakeClock()
  const stop = new AbortController()
  const running = runTasks(stop.signal, [(signal) => clock.sleep(minutes(60), signal)])
  stop.abort(new Error('SIGTERM'))
  await running
  assert.equal(clock.sleeping, 0)
})

test('SystemClock.sleep() rejects with the reason of an aborted signal', async () => {
  const reason = new Error('stop')
  const stop = new AbortController()
  const sleeping = new SystemClock().sleep(minutes(60), stop.signal)
  stop.abort(reason)
  await assert.rejects(sleeping, reason)
})
