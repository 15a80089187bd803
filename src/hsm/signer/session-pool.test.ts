import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { Deadlines } from '../deadlines.ts'
import { SessionPool } from './session-pool.ts'

function newPool(sessions: readonly string[], queueLength = 2) {
  const clock = new FakeClock()
  const deadlines = new Deadlines(clock, new AbortController().signal)
  return { clock, pool: new SessionPool(sessions, { queueLength, waitMs: 2000 }, deadlines) }
}

const unavailable = (words: RegExp) => (error: unknown) =>
  error instanceof AssayError && error.code === 'unavailable' && words.test(error.message)

test('SessionPool lends each session to one caller, in turn', async () => {
  const { pool } = newPool(['a', 'b'])
  assert.equal(await pool.take(), 'a')
  pool.give('a')
  assert.equal(await pool.take(), 'b')
  assert.equal(await pool.take(), 'a')
  assert.deepEqual(pool.idle, [])
})

test('SessionPool hands a returned session to whoever waits longest', async () => {
  const { pool } = newPool(['a'])
  await pool.take()
  const order: string[] = []
  const first = pool.take().then((session) => order.push(`first ${session}`))
  const second = pool.take().then((session) => order.push(`second ${session}`))
  pool.give('fresh')
  await first
  pool.give('fresh')
  await second
  assert.deepEqual(order, ['first fresh', 'second fresh'])
})

test('SessionPool refuses who comes when the queue is full', async () => {
  const { pool } = newPool(['a'], 1)
  await pool.take()
  const waiting = pool.take()
  await assert.rejects(pool.take(), unavailable(/1 requests wait already/))
  pool.give('a')
  assert.equal(await waiting, 'a')
})

test('SessionPool refuses who has waited two seconds', async () => {
  const { clock, pool } = newPool(['a'])
  await pool.take()
  const refused = assert.rejects(pool.take(), unavailable(/within 2000 ms/))
  await clock.advance(Temporal.Duration.from({ seconds: 3 }))
  await refused
  pool.give('a')
  assert.equal(await pool.take(), 'a', 'the session is not lost with the waiter')
})

test('SessionPool.close() refuses all, and resolves when the last session is back', async () => {
  const { pool } = newPool(['a', 'b'])
  await pool.take()
  await pool.take()
  const refused = assert.rejects(pool.take(), unavailable(/gone/))
  let drained = false
  const closing = pool.close(new AssayError('unavailable', 'gone')).then(() => {
    drained = true
  })
  await refused
  await assert.rejects(pool.take(), unavailable(/gone/))
  pool.give('a')
  await Promise.resolve()
  assert.equal(drained, false)
  pool.give(undefined)
  await closing
})

test('SessionPool.close() waits for a session that was just handed on', async () => {
  const { pool } = newPool(['a'])
  await pool.take()
  const waiting = pool.take()
  pool.give('a')
  let drained = false
  const closing = pool.close(new AssayError('unavailable', 'gone')).then(() => {
    drained = true
  })
  assert.equal(await waiting, 'a')
  assert.equal(drained, false)
  pool.give('a')
  await closing
})
