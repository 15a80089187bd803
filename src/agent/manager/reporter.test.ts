import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import type { Holdings } from './holdings.ts'
import { Reporter } from './reporter.ts'

const half = { bytes: (n: number) => new Uint8Array(n).fill(0x80) }
const milliseconds = (n: number): Temporal.Duration => Temporal.Duration.from({ milliseconds: n })
const seconds = (n: number): Temporal.Duration => Temporal.Duration.from({ seconds: n })

class Bench implements AsyncDisposable {
  readonly clock = new FakeClock()
  readonly sent: bigint[] = []
  readonly notes: string[] = []
  readonly reporter: Reporter
  failure: Error | undefined
  attempts = 0
  #holdings: Holdings = {
    bundleSequenceNumber: 1n,
    authorities: [],
    firstExpiryMs: undefined,
    againAtMs: undefined,
  }
  #feed = new AbortController()
  #running: Promise<void> = Promise.resolve()

  constructor() {
    this.reporter = new Reporter({
      holdings: () => this.#holdings,
      send: async ({ bundleSequenceNumber }) => {
        this.attempts += 1
        if (this.failure !== undefined) throw this.failure
        this.sent.push(bundleSequenceNumber)
      },
      clock: this.clock,
      random: half,
      log: { ...silentLog, debug: (_, message) => void this.notes.push(message) },
    })
  }

  async set(bundleSequenceNumber: bigint, againAtMs?: number): Promise<void> {
    this.#holdings = { bundleSequenceNumber, authorities: [], firstExpiryMs: undefined, againAtMs }
    this.reporter.changed()
    for (let turn = 0; turn < 20; turn += 1) await Promise.resolve()
  }

  /** A new feed, as after the old one was lost. */
  async feed(): Promise<void> {
    await this.end()
    this.#feed = new AbortController()
    this.#running = this.reporter.run(this.#feed.signal)
  }

  async end(): Promise<void> {
    this.#feed.abort(new Error('the feed has ended'))
    await this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end()
  }
}

test('Reporter.run() reports at the beginning of each feed, and after each change', async () => {
  await using bench = new Bench()
  assert.equal(bench.reporter.state, 'none')
  await bench.feed()
  assert.equal(bench.reporter.state, 'pending')
  await bench.clock.advance(seconds(1))
  assert.deepEqual(bench.sent, [1n])
  assert.equal(bench.reporter.state, 'taken')
  await bench.set(2n)
  await bench.clock.advance(seconds(1))
  assert.deepEqual(bench.sent, [1n, 2n])
  await bench.feed()
  await bench.clock.advance(seconds(1))
  assert.deepEqual(bench.sent, [1n, 2n, 2n])
  await bench.end()
  assert.equal(bench.reporter.state, 'none')
})

test('Reporter.run() gathers what changes within 100 ms', async () => {
  await using bench = new Bench()
  await bench.feed()
  await bench.clock.advance(seconds(1))
  for (let number = 2n; number <= 6n; number += 1n) {
    await bench.set(number)
    await bench.clock.advance(milliseconds(19))
  }
  assert.deepEqual(bench.sent, [1n])
  await bench.clock.advance(milliseconds(10))
  assert.deepEqual(bench.sent, [1n, 6n])
})

test('Reporter.run() says nothing when nothing differs, however often it is told of a change', async () => {
  await using bench = new Bench()
  await bench.feed()
  for (let minute = 0; minute < 60; minute += 1) {
    bench.reporter.changed()
    await bench.clock.advance(seconds(60))
  }
  assert.deepEqual(bench.sent, [1n])
})

test('Reporter.run() looks again when an unread message is waited for no longer', async () => {
  await using bench = new Bench()
  await bench.set(1n, bench.clock.now().add(seconds(10)).epochMilliseconds)
  await bench.feed()
  await bench.clock.advance(seconds(1))
  // Nobody tells of it: time has passed.
  const { reporter } = bench
  reporter.changed = () => {}
  await bench.set(2n)
  await bench.clock.advance(seconds(8))
  assert.deepEqual(bench.sent, [1n])
  await bench.clock.advance(seconds(2))
  assert.deepEqual(bench.sent, [1n, 2n])
})

test('Reporter.run() tries again at growing waits while the feed lives, and tells what is then the case', async () => {
  await using bench = new Bench()
  bench.failure = new AssayError('unavailable', 'the database is away')
  await bench.feed()
  await bench.clock.advance(seconds(300))
  assert.ok(bench.attempts > 10 && bench.attempts < 30, `${bench.attempts} attempts`)
  assert.equal(bench.reporter.state, 'pending')
  bench.failure = undefined
  await bench.set(5n)
  await bench.clock.advance(seconds(60))
  assert.deepEqual(bench.sent, [5n])
  assert.equal(bench.reporter.state, 'taken')
})

test('Reporter.run() leaves a server alone that does not count, and says so once', async () => {
  await using bench = new Bench()
  bench.failure = new AssayError('unimplemented', 'reports are not counted yet')
  await bench.feed()
  await bench.clock.advance(seconds(300))
  assert.equal(bench.attempts, 1)
  assert.equal(bench.reporter.state, 'unsupported')
  await bench.feed()
  await bench.clock.advance(seconds(300))
  assert.equal(bench.attempts, 2, 'a server may have been upgraded')
  assert.equal(bench.notes.length, 1)
  bench.failure = undefined
  await bench.feed()
  await bench.clock.advance(seconds(1))
  assert.equal(bench.reporter.state, 'taken')
})
