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
    source: 'feed',
    revision: 1n,
    complete: false,
    entries: [],
    removedEntryIds: [],
    bundle: undefined,
    federatedBundles: [],
    removedFederated: [],
    serverTimeMs: undefined,
    replacementSpreadSeconds: 0,
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
  /** Of the tokens that the server gives, in order; no more after the last. */
  keyIds: string[] = []
  holdingsChanges = 0
  readonly learnt: Bundle[] = []
  readonly identities: Identities
  readonly #stop = new AbortController()
  readonly #running: Promise<void>

  constructor() {
    this.identities = new Identities({
      issuer: {
        x509Signer: { sign: (entries) => this.#sign(entries) },
        issueJwtSvid: async () => {
          const keyId = this.keyIds.shift()
          if (keyId === undefined) throw new AssayError('internal', 'the server is broken')
          const nowSeconds = Math.trunc(this.clock.now().epochMilliseconds / 1000)
          const expiresAtSeconds = nowSeconds + 300
          return { token: `of ${keyId}`, keyId, issuedAtSeconds: nowSeconds, expiresAtSeconds }
        },
        pqX509Signer: { sign: (entries) => this.#sign(entries) },
        issuePqJwtSvid: () => Promise.reject(new AssayError('internal', 'not asked for')),
        fetchBundle: async () => this.current,
      },
      onOwnBundle: (each) => this.learnt.push(each),
      onHoldings: () => {
        this.holdingsChanges += 1
      },
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

test('Identities.x509View() does not take an identity away for the moment in which it is signed anew', async () => {
  await using bench = new Bench()
  const { identities } = bench
  const both = bundle([bench.first, bench.second])
  identities.apply(change({ complete: true, bundle: both, entries: [agentEntry('a')] }))
  assert.equal(await bench.shown(), 'a')
  bench.active = bench.second
  identities.apply(change({ entries: [agentEntry('b')] }))
  assert.equal(await bench.shown(), 'a,b')
  // Revoked: the SVID of one identity is gone, that of the other is not touched.
  identities.apply(change({ bundle: bundle([bench.second], { sequenceNumber: 2n }) }))
  const entitlement = identities.entitlementOf(mine)
  assert.equal(identities.x509View(entitlement).state, 'pending')
  assert.equal(await bench.shown(), 'a,b')
})

test('Identities gives no SVID of an authority that an open stream has not been told of', async () => {
  await using bench = new Bench()
  const { identities } = bench
  identities.apply(change({ complete: true, bundle: bench.current }))
  using verifier = identities.deliver('x509', undefined)
  verifier.offer({ bundle: bench.current, svids: [] })
  verifier.taken()
  const next = bundle([bench.first, bench.second], { sequenceNumber: 2n })
  bench.active = bench.second
  identities.apply(change({ bundle: next, entries: [agentEntry('a')] }))
  verifier.offer({ bundle: next, svids: [] })
  const entitlement = identities.entitlementOf(mine)
  for (let turn = 0; turn < 100; turn += 1) await Promise.resolve()
  assert.equal(identities.x509View(entitlement).state, 'pending')
  verifier.taken()
  assert.equal(await bench.shown(), 'a')
})

test('Identities passes over a bundle that another one has overtaken, unless the server says the whole state', async () => {
  await using bench = new Bench()
  const { identities } = bench
  const older = bundle([bench.first], { sequenceNumber: 5n })
  const newer = bundle([bench.first, bench.second], { sequenceNumber: 6n })
  identities.apply(change({ complete: true, bundle: newer, entries: [agentEntry('a')] }))
  bench.active = bench.second
  assert.equal(await bench.shown(), 'a')
  identities.apply(change({ bundle: older }))
  assert.equal(identities.bundles.own, newer)
  assert.equal(await bench.shown(), 'a')
  identities.apply(change({ complete: true, bundle: older }))
  assert.equal(identities.bundles.own, older)
})

test('Identities.holdings() names the bundle that all workloads have and the use of each authority', async () => {
  await using bench = new Bench()
  const { identities } = bench
  const before = bundle([bench.first, bench.second], { sequenceNumber: 7n })
  identities.apply(
    change({ complete: true, bundle: before, entries: [agentEntry('a'), agentEntry('b')] }),
  )
  assert.equal(await bench.shown(), 'a,b')
  const entitlement = identities.entitlementOf(mine)
  const view = identities.x509View(entitlement)
  assert.ok(view.state === 'ready')
  using stream = identities.deliver('x509', undefined)
  stream.offer({ bundle: view.bundle, svids: view.identities.map(({ svid }) => svid) })
  stream.taken()
  const [first, second] = [bench.first, bench.second].map(
    ({ certificate }) => parseCertificate(certificate).subjectKeyId?.toHex() ?? '',
  )
  const own = { authorityId: second ?? '', expiresAtMs: bench.clock.now().epochMilliseconds + 1 }
  const uses = (): string[] =>
    identities
      .holdings(own)
      .authorities.map(
        ({ authorityId, svids }) => `${authorityId === first ? 'first' : 'second'} ${svids}`,
      )
  assert.deepEqual(uses().sort(), ['first 2', 'second 1'])

  // Both are replaced in the cache, and the workload has not been sent them yet.
  bench.active = bench.second
  const tainted = {
    ...before,
    x509Authorities: before.x509Authorities.map((a, i) => ({ ...a, tainted: i === 0 })),
    sequenceNumber: 8n,
  }
  const seen = bench.holdingsChanges
  identities.apply(change({ bundle: tainted }))
  assert.ok(bench.holdingsChanges > seen)
  for (let turn = 0; turn < 100; turn += 1) await Promise.resolve()
  assert.deepEqual(uses().sort(), ['first 2', 'second 3'])
  assert.equal(identities.holdings(own).bundleSequenceNumber, 7n)
  const next = identities.x509View(entitlement)
  assert.ok(next.state === 'ready')
  stream.offer({ bundle: next.bundle, svids: next.identities.map(({ svid }) => svid) })
  stream.taken()
  assert.deepEqual(uses(), ['second 3'])
  assert.equal(identities.holdings(own).bundleSequenceNumber, 8n)
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

const jwtBundle = (keyIds: readonly string[], over: Partial<Bundle> = {}): Bundle =>
  bundle([], {
    jwtAuthorities: keyIds.map((keyId) => ({
      keyId,
      publicKey: new Uint8Array(),
      expiresAtSeconds: 0,
      tainted: false,
    })),
    ...over,
  })

test('Identities.jwtSvid() fetches the bundle when a token comes of a key it does not know', async () => {
  await using bench = new Bench()
  const { identities } = bench
  identities.apply(change({ complete: true, bundle: jwtBundle(['old']) }))
  bench.current = jwtBundle(['old', 'new'], { sequenceNumber: 2n })
  bench.keyIds = ['new']
  const { token } = await identities.jwtSvid(agentEntry('a'), ['db'], never)
  assert.equal(token, 'of new')
  assert.equal(identities.bundles.own, bench.current)
})

test('Identities.jwtSvid() gives no token of a key that is in no bundle', async () => {
  await using bench = new Bench()
  const { identities } = bench
  bench.current = jwtBundle(['old'])
  identities.apply(change({ complete: true, bundle: bench.current }))
  bench.keyIds = ['stranger', 'stranger']
  await assert.rejects(identities.jwtSvid(agentEntry('a'), ['db'], never), {
    reason: 'jwt-svid-unavailable',
  })
  assert.equal(identities.counts.jwtSvids, 0)
})

test('Identities.jwtSvid() asks once more when the key was revoked while the token was on its way', async () => {
  await using bench = new Bench()
  const { identities } = bench
  bench.current = jwtBundle(['new'])
  identities.apply(change({ complete: true, bundle: bench.current }))
  bench.keyIds = ['old', 'new']
  const { token } = await identities.jwtSvid(agentEntry('a'), ['db'], never)
  assert.equal(token, 'of new')
})

test('Identities.jwtSvid() gives no token of a key that an open stream has not been told of', async () => {
  await using bench = new Bench()
  const { identities } = bench
  const before = jwtBundle(['old'])
  identities.apply(change({ complete: true, bundle: before }))
  using verifier = identities.deliver('jwt', undefined)
  verifier.offer({ bundle: before, svids: [] })
  verifier.taken()
  bench.keyIds = ['new']
  const after = jwtBundle(['old', 'new'], { sequenceNumber: 2n })
  identities.apply(change({ bundle: after }))
  let given: string | undefined
  const asked = identities.jwtSvid(agentEntry('a'), ['db'], never).then(({ token }) => {
    given = token
  })
  for (let turn = 0; turn < 100; turn += 1) await Promise.resolve()
  assert.equal(given, undefined)
  verifier.offer({ bundle: after, svids: [] })
  verifier.taken()
  await asked
  assert.equal(given, 'of new')
})

test('Identities gives out no token of a key that is tainted or gone, from that moment', async () => {
  await using bench = new Bench()
  const { identities } = bench
  identities.apply(change({ complete: true, bundle: jwtBundle(['one', 'two', 'three']) }))
  const ask = async () => (await identities.jwtSvid(agentEntry('a'), ['db'], never)).token
  bench.keyIds = ['one', 'two', 'three']
  assert.equal(await ask(), 'of one')
  assert.equal(await ask(), 'of one')
  const { jwtAuthorities } = jwtBundle(['one', 'two', 'three'])
  const tainted = jwtAuthorities.map((a) => ({ ...a, tainted: a.keyId === 'one' }))
  identities.apply(change({ bundle: bundle([], { jwtAuthorities: tainted, sequenceNumber: 2n }) }))
  assert.equal(await ask(), 'of two')
  identities.apply(change({ bundle: jwtBundle(['three'], { sequenceNumber: 3n }) }))
  assert.equal(await ask(), 'of three')
})
