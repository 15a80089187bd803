import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { IssueTime } from './issue-time.ts'

const start = 1767225600

function clockAt(): Clock & { seconds: number } {
  return {
    seconds: start,
    now() {
      return Temporal.Instant.fromEpochMilliseconds(this.seconds * 1000 + 999)
    },
    sleep: () => Promise.reject(new Error('not used')),
  }
}

test('IssueTime.now() is the clock in whole seconds, and remembers the newest', () => {
  const clock = clockAt()
  const time = new IssueTime(clock, 0)
  assert.equal(time.now(), start)
  clock.seconds -= 60
  assert.equal(time.now(), start - 60)
  assert.equal(time.newestSeconds, start)
  assert.equal(time.problem(), undefined)
})

test('IssueTime.now() refuses a clock more than a minute behind what was issued (R9)', () => {
  const clock = clockAt()
  const time = new IssueTime(clock, 0)
  time.now()
  clock.seconds -= 61
  assert.throws(() => time.now(), {
    code: 'unavailable',
    reason: 'clock-went-back',
    message: /2025-12-31T23:58:59Z, but something was issued at 2026-01-01T00:00:00Z/,
  })
  clock.seconds = start
  assert.equal(time.now(), start)
})

test('IssueTime knows what was issued before a restart, and accept() forgets it', () => {
  const clock = clockAt()
  const time = new IssueTime(clock, start + 10 * 24 * 3600)
  assert.throws(() => time.now(), { reason: 'clock-went-back' })
  time.accept()
  assert.equal(time.now(), start)
  assert.equal(time.newestSeconds, start)
})
