import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { parseCertificate } from '#pki/certificate.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseSelector, selectorSet } from '#spiffe/selector.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { type Issued, newAuthority } from '../../../test/support/certificates.ts'
import type { AgentEntry } from './agent-entry.ts'
import { agentEntry } from './fake-entry.ts'
import { Identities } from './identities.ts'
import type { Update } from './update.ts'
import type { X509Svid } from './x509-svid.ts'

const never = new AbortController().signal
const trustDomain = parseTrustDomain('example.org')
const partner = parseTrustDomain('partner.example')
const mine = selectorSet([parseSelector('unix:uid:1000')])

function bundle(authorities: readonly Issued[], over: Partial<Bundle> = {}): Bundle {
  return {
    trustDomain,
    x509Authorities: authorities.map(({ certificate }) => ({ certificate, tainted: false })),
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
    ...over,
  }
}

function change(over: Partial<Update>): Update {
  return {
    revision: 1n,
    complete: false,
    entries: [],
    removedEntryIds: [],
    bundle: undefined,
    federatedBundles: [],
    removedFederated: [],
    serverTimeMs: undefined,
    ...over,
  }
}

class Bench implements AsyncDisposable {
  readonly clock = new FakeClock()
  readonly first = newAuthority('example.org')
  readonly second = newAuthority('example.org')
  /** Signs from now on. */
  active = this.first
  /** What the server would answer to GetBundle. */
  current = bundle([this.first])
  failure: Error | undefined
  readonly learnt: Bundle[] = []
  readonly identities: Identities
  readonly #stop = new AbortController()
  readonly #running: Promise<void>

  constructor() {
    this.identities = new Identities({
      issuer: {
        x509Signer: { sign: (entries) => this.#sign(entries) },
        issueJwtSvid: async () => {
          throw new AssayError('internal', 'the server is broken')
        },
        fetchBundle: async () => this.current,
      },
      onOwnBundle: (each) => this.learnt.push(each),
      x509SvidCacheMaxSize: 100,
      jwtSvidCacheMaxSize: 100,
      clock: this.clock,
      random: new SystemRandom(),
      log: silentLog,
    })
    this.#running = this.identities.run(this.#stop.signal)
  }

  async #sign(entries: readonly AgentEntry[]): Promise<X509Svid[]> {
    if (this.failure !== undefined) throw this.failure
    const authorityId = parseCertificate(this.active.certificate).subjectKeyId?.toHex() ?? ''
    return entries.map(({ spiffeId }) => ({
      spiffeId,
      certificates: [],
      privateKey: new Uint8Array(),
      expiresAtMs: this.clock.now().epochMilliseconds + 3_600_000,
      authorityId,
    }))
  }

  /** Ids of the entries whose SVIDs there are to give, or the state. */
  async shown(): Promise<string> {
    const entitlement = this.identities.entitlementOf(mine)
    await this.identities.settled(entitlement, never)
    const view = this.identities.x509View(entitlement)
    if (view.state !== 'ready') return view.state
    return view.identities.map(({ entry }) => entry.id).join()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the test is over'))
    await this.#running
  }
}

test('Identities.apply() shows new entries and hides removed ones', async () => {
  await using bench = new Bench()
  const { identities } = bench
  assert.equal(identities.isSynchronized, false)
  identities.apply(
    change({ complete: true, bundle: bench.current, entries: [agentEntry('b'), agentEntry('a')] }),
  )
  assert.equal(identities.isSynchronized, true)
  assert.equal(await bench.shown(), 'a,b')
  identities.apply(change({ removedEntryIds: ['a'] }))
  assert.equal(await bench.shown(), 'b')
  identities.apply(change({ complete: true, bundle: bench.current }))
  assert.equal(await bench.shown(), 'none')
})

test('Identities.x509View() leaves a failing identity out rather than the sound ones', async () => {
  await using bench = new Bench()
  const { identities } = bench
  identities.apply(change({ complete: true, bundle: bench.current, entries: [agentEntry('a')] }))
  assert.equal(await bench.shown(), 'a')
  bench.failure = new Error('connection refused')
  identities.apply(change({ entries: [agentEntry('b')] }))
  assert.equal(await bench.shown(), 'a')
  identities.apply(change({ removedEntryIds: ['a'] }))
  assert.equal(await bench.shown(), 'unavailable')
})

test('Identities fetches the bundle when an SVID comes from an authority it does not know', async () => {
  await using bench = new Bench()
  const { identities } = bench
  identities.apply(change({ complete: true, bundle: bench.current }))
  bench.active = bench.second
  bench.current = bundle([bench.first, bench.second], { sequenceNumber: 2n })
  identities.apply(change({ entries: [agentEntry('a')] }))
  assert.equal(await bench.shown(), 'a')
  assert.equal(identities.bundles.own, bench.current)
  assert.equal(bench.learnt.length, 2)
})

test('Identities gives no SVID of a revoked authority, and soon one of another', async () => {
  await using bench = new Bench()
  const { identities } = bench
  const both = bundle([bench.first, bench.second])
  identities.apply(change({ complete: true, bundle: both, entries: [agentEntry('a')] }))
  assert.equal(await bench.shown(), 'a')
  bench.active = bench.second
  identities.apply(change({ bundle: bundle([bench.second], { sequenceNumber: 2n }) }))
  const view = identities.x509View(identities.entitlementOf(mine))
  assert.equal(view.state, 'pending')
  assert.equal(await bench.shown(), 'a')
})

test('Identities.federatedOf() gives the bundles that entries ask for, and the agent has', async () => {
  await using bench = new Bench()
  const { identities } = bench
  const foreign = bundle([newAuthority('partner.example')], { trustDomain: partner })
  const entry = agentEntry('a', { federatesWith: [partner, parseTrustDomain('absent.example')] })
  identities.apply(
    change({
      complete: true,
      bundle: bench.current,
      entries: [entry],
      federatedBundles: [foreign],
    }),
  )
  assert.deepEqual(identities.federatedOf([entry]), [foreign])
  const followed = identities.entitlementOf(mine)
  const seen = followed.version
  identities.apply(change({ removedFederated: [partner] }))
  assert.notEqual(followed.version, seen)
  assert.deepEqual(identities.federatedOf([entry]), [])
})

test('Identities.usesProgram is true while an entry asks for a path or digest', async () => {
  await using bench = new Bench()
  const { identities } = bench
  identities.apply(change({ complete: true, bundle: bench.current, entries: [agentEntry('a')] }))
  assert.equal(identities.usesProgram, false)
  const asking = agentEntry('b', { selectors: ['unix:path:/usr/bin/web'] })
  identities.apply(change({ entries: [asking] }))
  assert.equal(identities.usesProgram, true)
  identities.apply(change({ removedEntryIds: ['b'] }))
  assert.equal(identities.usesProgram, false)
})

test('Identities.lossOf() is the share of entries that a complete update takes away', async () => {
  await using bench = new Bench()
  const { identities } = bench
  const all = ['a', 'b', 'c', 'd'].map((id) => agentEntry(id))
  identities.apply(change({ complete: true, bundle: bench.current, entries: all }))
  assert.equal(identities.lossOf(change({ complete: true, entries: all.slice(1) })), 0.25)
  assert.equal(identities.lossOf(change({ removedEntryIds: ['a'] })), 0)
})

test('Identities.clear() leaves nothing to give', async () => {
  await using bench = new Bench()
  const { identities } = bench
  identities.apply(change({ complete: true, bundle: bench.current, entries: [agentEntry('a')] }))
  assert.equal(await bench.shown(), 'a')
  identities.clear()
  assert.equal(identities.isSynchronized, false)
  assert.equal(await bench.shown(), 'none')
  assert.deepEqual(identities.counts, { entries: 0, x509Svids: 0, jwtSvids: 0 })
})

test('Identities.jwtSvid() is unavailable when the server gives none', async () => {
  await using bench = new Bench()
  await assert.rejects(bench.identities.jwtSvid(agentEntry('a'), ['db'], never), {
    code: 'unavailable',
    reason: 'jwt-svid-unavailable',
  })
})
