import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { Alarm } from './alarm.ts'

const never = new AbortController().signal
const seconds = (n: number): Temporal.Duration => Temporal.Duration.from({ seconds: n })

test('Alarm.wait() returns when its time has come', async () => {
  const clock = new FakeClock()
  const waiting = new Alarm(clock).wait(clock.now().add(seconds(5)).epochMilliseconds, never)
  await clock.advance(seconds(4))
  assert.equal(clock.sleeping, 1)
  await clock.advance(seconds(1))
  await waiting
})

test('Alarm.wait() returns at once for a time that is past', async () => {
  const clock = new FakeClock()
  await new Alarm(clock).wait(clock.now().epochMilliseconds - 1, never)
})

test('Alarm.wait() looks again after 30 seconds, since a wall clock can be set', async () => {
  const clock = new FakeClock()
  const waiting = new Alarm(clock).wait(undefined, never)
  await clock.advance(seconds(30))
  await waiting
})

test('Alarm.ring() ends the present wait, or the next one', async () => {
  const clock = new FakeClock()
  const alarm = new Alarm(clock)
  const waiting = alarm.wait(undefined, never)
  alarm.ring()
  await waiting
  alarm.ring()
  await alarm.wait(undefined, never)
  assert.equal(clock.sleeping, 0)
})

test('Alarm.wait() ends with the reason of its signal', async () => {
  const stop = new AbortController()
  const waiting = new Alarm(new FakeClock()).wait(undefined, stop.signal)
  const reason = new Error('stop')
  stop.abort(reason)
  await assert.rejects(waiting, reason)
})
