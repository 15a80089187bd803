import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { endWhenStalled } from './stalled.ts'

const seconds = (n: number): Temporal.Duration => Temporal.Duration.from({ seconds: n })

test('endWhenStalled() passes everything on, and ends when the source does', async () => {
  const source = (async function* () {
    yield 1
    yield 2
  })()
  const { signal } = new AbortController()
  const seen: number[] = []
  for await (const each of endWhenStalled(source, {
    limit: seconds(10),
    clock: new FakeClock(),
    signal,
  })) {
    seen.push(each)
  }
  assert.deepEqual(seen, [1, 2])
})

test('endWhenStalled() gives a silent source up', async () => {
  const clock = new FakeClock()
  const silent = (async function* () {
    yield 1
    await new Promise(() => {})
  })()
  const { signal } = new AbortController()
  const stream = endWhenStalled(silent, { limit: seconds(10), clock, signal })
  assert.equal((await stream.next()).value, 1)
  const next = assert.rejects(stream.next(), { code: 'unavailable', reason: 'stream-stalled' })
  await clock.advance(seconds(10))
  await next
})
