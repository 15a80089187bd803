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
  /** Moments for the replacement of what tainted authorities signed; at once without. */
  readonly moments = new Map<string, number>()
  /** Authorities that were waited for, in order, and what the wait is for at present. */
  readonly awaited: string[] = []
  known: Promise<void> = Promise.resolve()
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
      untilKnown: async (ids) => {
        this.awaited.push(...ids)
        await this.known
      },
      replaceAtMs: (id) => this.moments.get(id) ?? 0,
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

  /** `ca-1` is tainted, and `ca-2` signs. */
  taint({ after }: { readonly after: Temporal.Duration }): void {
    this.moments.set('ca-1', this.clock.now().add(after).epochMilliseconds)
    this.trust.set('ca-1', 'tainted')
    this.trust.set('ca-2', 'trusted')
    this.authority = 'ca-2'
  }

  authorityOf(id: string): string | undefined {
    const state = this.cache.stateOf(id)
    return state.state === 'held' ? state.svid.authorityId : undefined
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

test('X509SvidCache.authoritiesChanged() replaces what a tainted authority signed when its moment has come', async () => {
  await using bench = new Bench()
  await bench.held('a', 'b')
  bench.taint({ after: minutes(10) })
  bench.cache.authoritiesChanged()
  await bench.clock.advance(minutes(9))
  assert.equal(bench.batches.length, 1)
  // What has been said already is said again with every change of the bundle.
  bench.cache.authoritiesChanged()
  await bench.clock.advance(minutes(2))
  assert.deepEqual(bench.batches.slice(1), [['a', 'b']])
  assert.equal(bench.authorityOf('a'), 'ca-2')
})

test('X509SvidCache does not let the moment of a tainted authority defer half-life, expiry, revocation or another taint', async (t) => {
  await t.test('half-life', async () => {
    await using bench = new Bench()
    await bench.held('a')
    bench.taint({ after: minutes(50) })
    bench.cache.authoritiesChanged()
    await bench.clock.advance(minutes(31))
    assert.equal(bench.authorityOf('a'), 'ca-2')
  })
  await t.test('expiry', async () => {
    await using bench = new Bench()
    await bench.held('a')
    bench.taint({ after: minutes(300) })
    bench.cache.authoritiesChanged()
    bench.failure = new Error('connection refused')
    await bench.clock.advance(minutes(61))
    assert.equal(bench.state('a'), 'unavailable')
  })
  await t.test('revocation', async () => {
    await using bench = new Bench()
    await bench.held('a')
    bench.taint({ after: minutes(20) })
    bench.cache.authoritiesChanged()
    bench.trust.delete('ca-1')
    bench.cache.authoritiesChanged()
    assert.equal(bench.state('a'), 'pending')
    await bench.settle()
    assert.equal(bench.authorityOf('a'), 'ca-2')
  })
  await t.test('another taint', async () => {
    await using bench = new Bench()
    await bench.held('a')
    bench.taint({ after: minutes(20) })
    bench.cache.setEntry(agentEntry('b'))
    await bench.cache.settled(['b'], never)
    bench.cache.authoritiesChanged()
    bench.trust.set('ca-2', 'tainted')
    bench.trust.set('ca-3', 'trusted')
    bench.authority = 'ca-3'
    bench.cache.authoritiesChanged()
    await bench.settle()
    assert.deepEqual([bench.authorityOf('a'), bench.authorityOf('b')], ['ca-1', 'ca-3'])
  })
})

test('X509SvidCache does not ask again at once for an SVID that is tainted from the start', async () => {
  await using bench = new Bench()
  bench.trust.set('ca-1', 'tainted')
  await bench.held('a')
  await bench.clock.advance(seconds(9))
  assert.equal(bench.batches.length, 1)
  await bench.clock.advance(seconds(2))
  assert.equal(bench.batches.length, 2)
})

test('X509SvidCache gives out no SVID before the verifiers on this node know its authority', async () => {
  await using bench = new Bench()
  const { promise, resolve } = Promise.withResolvers<void>()
  bench.known = promise
  bench.cache.setEntry(agentEntry('a'))
  await bench.settle()
  assert.deepEqual(bench.awaited, ['ca-1'])
  assert.equal(bench.state('a'), 'pending')
  assert.deepEqual(bench.changes, [])
  resolve()
  await bench.cache.settled(['a'], never)
  assert.equal(bench.state('a'), 'held')
})

test('X509SvidCache.stateOf() tells a replacement for a withdrawn SVID from a first one', async () => {
  await using bench = new Bench()
  await bench.held('a')
  bench.failure = new Error('connection refused')
  bench.cache.setEntry(agentEntry('b'))
  assert.deepEqual(bench.cache.stateOf('b'), { state: 'pending', isReplacement: false })
  bench.trust.delete('ca-1')
  bench.cache.authoritiesChanged()
  assert.deepEqual(bench.cache.stateOf('a'), { state: 'pending', isReplacement: true })
  await bench.settle()
  assert.equal(bench.state('a'), 'unavailable')
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
