import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import type { AgentEntry } from './agent-entry.ts'
import { agentEntry } from './fake-entry.ts'
import type { AuthorityTrust, X509Signer, X509Svid } from './x509-svid.ts'
import { X509SvidCache } from './x509-svid-cache.ts'

const never = new AbortController().signal
const minutes = (n: number): Temporal.Duration => Temporal.Duration.from({ minutes: n })
const seconds = (n: number): Temporal.Duration => Temporal.Duration.from({ seconds: n })
/** Half of everything: renewal at exactly half-life, waits at their nominal length. */
const half = { bytes: (n: number) => new Uint8Array(n).fill(0x80) }

/** A cache whose server is in the hands of the test. */
class Bench implements AsyncDisposable, X509Signer {
  readonly clock = new FakeClock()
  readonly trust = new Map<string, AuthorityTrust>([['ca-1', 'trusted']])
  readonly batches: string[][] = []
  readonly changes: string[][] = []
  readonly inUse = new Set<string>()
  readonly cache: X509SvidCache
  authority = 'ca-1'
  ttlMinutes = 60
  refreshed = 0
  failure: Error | undefined
  refusal: AssayError | undefined
  readonly #stop = new AbortController()
  readonly #running: Promise<void>

  constructor(maxSize = 1000) {
    this.cache = new X509SvidCache({
      signer: this,
      trustOf: (id) => this.trust.get(id) ?? 'unknown',
      refreshBundle: async () => {
        this.refreshed += 1
      },
      onChanged: (ids) => this.changes.push([...ids].sort()),
      isInUse: (id) => this.inUse.has(id),
      maxSize,
      clock: this.clock,
      random: half,
      log: silentLog,
    })
    this.#running = this.cache.run(this.#stop.signal)
  }

  async sign(entries: readonly AgentEntry[]): Promise<readonly (X509Svid | AssayError)[]> {
    this.batches.push(entries.map((entry) => entry.id))
    if (this.failure !== undefined) throw this.failure
    return entries.map(
      (entry) =>
        this.refusal ?? {
          spiffeId: entry.spiffeId,
          certificates: [],
          privateKey: new Uint8Array(),
          expiresAtMs: this.clock.now().add(minutes(this.ttlMinutes)).epochMilliseconds,
          authorityId: this.authority,
        },
    )
  }

  /** Lets everything happen that waits for nothing but its turn. */
  async settle(): Promise<void> {
    await this.clock.advance(Temporal.Duration.from({ milliseconds: 1 }))
    for (let i = 0; i < 50; i += 1) await Promise.resolve()
  }

  async held(...ids: string[]): Promise<void> {
    for (const id of ids) this.cache.setEntry(agentEntry(id))
    await this.cache.settled(ids, never)
  }

  state(id: string): string {
    return this.cache.stateOf(id).state
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the test is over'))
    await this.#running
  }
}

test('X509SvidCache signs new entries ahead, in one batch', async () => {
  await using bench = new Bench()
  await bench.held('a', 'b', 'c')
  assert.deepEqual(bench.batches, [['a', 'b', 'c']])
  assert.equal(bench.cache.size, 3)
  assert.deepEqual(bench.changes, [['a', 'b', 'c']])
})

test('X509SvidCache signs an entry that opted out of prefetch only when it is wanted', async () => {
  await using bench = new Bench()
  bench.cache.setEntry(agentEntry('a', { disableX509SvidPrefetch: true }))
  await bench.settle()
  assert.deepEqual(bench.batches, [])
  bench.cache.want('a')
  await bench.cache.settled(['a'], never)
  assert.equal(bench.state('a'), 'held')
})

test('X509SvidCache replaces an SVID at half of its life while the old one is given out', async () => {
  await using bench = new Bench()
  await bench.held('a')
  await bench.clock.advance(minutes(29))
  assert.equal(bench.batches.length, 1)
  await bench.clock.advance(minutes(2))
  assert.equal(bench.batches.length, 2)
  assert.equal(bench.state('a'), 'held')
})

test('X509SvidCache goes on giving out an SVID while the server is away, and never once it has expired', async () => {
  await using bench = new Bench()
  await bench.held('a')
  bench.failure = new Error('connection refused')
  await bench.clock.advance(minutes(59))
  assert.ok(bench.batches.length > 10, 'it keeps trying')
  assert.equal(bench.state('a'), 'held')
  const seen = bench.changes.length
  await bench.clock.advance(minutes(2))
  assert.equal(bench.state('a'), 'unavailable')
  assert.deepEqual(bench.changes.slice(seen), [['a']])
  bench.failure = undefined
  bench.cache.retryNow()
  await bench.settle()
  assert.equal(bench.state('a'), 'held')
})

test('X509SvidCache answers pending callers when the server cannot be asked', async () => {
  await using bench = new Bench()
  bench.failure = new Error('connection refused')
  bench.cache.setEntry(agentEntry('a'))
  await bench.cache.settled(['a'], never)
  const state = bench.cache.stateOf('a')
  assert.equal(state.state, 'unavailable')
})

test('X509SvidCache halves its batches when they fail and grows them again', async () => {
  await using bench = new Bench()
  bench.failure = new Error('deadline exceeded')
  for (let i = 0; i < 8; i += 1) bench.cache.setEntry(agentEntry(`e${i}`))
  await bench.settle()
  assert.equal(bench.batches[0]?.length, 8)
  for (let i = 0; i < 9; i += 1) await bench.clock.advance(minutes(1))
  assert.ok((bench.batches.at(-1)?.length ?? 9) < 8)
  bench.failure = undefined
  bench.cache.retryNow()
  await bench.settle()
  await bench.clock.advance(minutes(1))
  assert.equal(bench.cache.size, 8)
})

test('X509SvidCache signs what somebody waits for before what nobody asked for', async () => {
  await using bench = new Bench()
  bench.failure = new Error('connection refused')
  bench.cache.setEntry(agentEntry('a'))
  bench.cache.setEntry(agentEntry('b', { disableX509SvidPrefetch: true }))
  await bench.settle()
  bench.cache.want('b')
  bench.failure = undefined
  await bench.settle()
  assert.deepEqual(bench.batches.at(-2), ['b'])
  assert.deepEqual(bench.batches.at(-1), ['a'])
})

test('X509SvidCache keeps a refusal and asks again later', async () => {
  await using bench = new Bench()
  bench.refusal = new AssayError('not-found', 'entry not found or not authorized')
  bench.cache.setEntry(agentEntry('a'))
  await bench.cache.settled(['a'], never)
  assert.equal(bench.state('a'), 'refused')
  bench.refusal = undefined
  await bench.clock.advance(seconds(11))
  assert.equal(bench.state('a'), 'held')
})

test('X509SvidCache.deleteEntry() withdraws the SVID at once', async () => {
  await using bench = new Bench()
  await bench.held('a')
  bench.cache.deleteEntry('a')
  assert.equal(bench.state('a'), 'unknown')
  assert.equal(bench.cache.size, 0)
  await bench.clock.advance(minutes(120))
  assert.equal(bench.batches.length, 1)
})

test('X509SvidCache.setEntry() has a new revision signed, and gives out the old SVID meanwhile', async () => {
  await using bench = new Bench()
  await bench.held('a')
  bench.cache.setEntry(agentEntry('a', { revisionNumber: 1 }))
  assert.equal(bench.state('a'), 'held')
  await bench.settle()
  assert.equal(bench.batches.length, 2)
})

test('X509SvidCache.setEntry() withdraws the SVID of an entry that got another SPIFFE ID', async () => {
  await using bench = new Bench()
  await bench.held('a')
  const renamed = agentEntry('b').spiffeId
  bench.cache.setEntry(agentEntry('a', { spiffeId: renamed, revisionNumber: 1 }))
  assert.equal(bench.state('a'), 'pending')
  await bench.settle()
  const state = bench.cache.stateOf('a')
  assert.equal(state.state === 'held' && state.svid.spiffeId, renamed)
})

test('X509SvidCache.authoritiesChanged() replaces at once what a tainted authority signed', async () => {
  await using bench = new Bench()
  await bench.held('a', 'b')
  bench.trust.set('ca-1', 'tainted')
  bench.trust.set('ca-2', 'trusted')
  bench.authority = 'ca-2'
  bench.cache.authoritiesChanged()
  assert.equal(bench.state('a'), 'held')
  await bench.settle()
  const state = bench.cache.stateOf('a')
  assert.equal(state.state === 'held' && state.svid.authorityId, 'ca-2')
})

test('X509SvidCache.authoritiesChanged() withdraws what a revoked authority signed', async () => {
  await using bench = new Bench()
  await bench.held('a')
  bench.trust.delete('ca-1')
  bench.trust.set('ca-2', 'trusted')
  bench.authority = 'ca-2'
  bench.cache.authoritiesChanged()
  assert.equal(bench.state('a'), 'pending')
  assert.deepEqual(bench.changes.at(-1), ['a'])
  await bench.settle()
  assert.equal(bench.state('a'), 'held')
})

test('X509SvidCache never gives out an SVID whose authority the bundle lacks, and fetches the bundle', async () => {
  await using bench = new Bench()
  bench.authority = 'ca-2'
  bench.cache.setEntry(agentEntry('a'))
  await bench.cache.settled(['a'], never)
  assert.equal(bench.refreshed, 1)
  assert.equal(bench.state('a'), 'unavailable')
  bench.trust.set('ca-2', 'trusted')
  await bench.clock.advance(minutes(1))
  assert.equal(bench.state('a'), 'held')
})

test('X509SvidCache refuses an SVID that has expired by the clock of the node, and says so', async () => {
  await using bench = new Bench()
  bench.ttlMinutes = -120
  bench.cache.setEntry(agentEntry('a'))
  await bench.cache.settled(['a'], never)
  const state = bench.cache.stateOf('a')
  assert.equal(state.state, 'unavailable')
  assert.match(state.state === 'unavailable' ? state.error.message : '', /clock/)
})

test('X509SvidCache gives up the least recently used SVIDs above its size, never one in use', async () => {
  await using bench = new Bench(2)
  await bench.held('a', 'b')
  bench.inUse.add('a')
  bench.cache.setEntry(agentEntry('c'))
  await bench.settle()
  assert.equal(bench.state('c'), 'pending')
  bench.cache.want('c')
  await bench.cache.settled(['c'], never)
  assert.deepEqual(
    ['a', 'b', 'c'].map((id) => bench.state(id)),
    ['held', 'pending', 'held'],
  )
  assert.deepEqual(bench.changes.at(-1), ['b', 'c'])
})

test('X509SvidCache.settled() ends when its signal aborts', async () => {
  const bench = new Bench()
  bench.cache.setEntry(agentEntry('a', { disableX509SvidPrefetch: true }))
  const stop = new AbortController()
  const waiting = bench.cache.settled(['a'], stop.signal)
  const reason = new Error('the workload went away')
  stop.abort(reason)
  await assert.rejects(waiting, reason)
  await bench[Symbol.asyncDispose]()
})
