import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSelector, type Selector, selectorSet } from '#spiffe/selector.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import type { Entitlement } from './entitlements.ts'
import { Entitlements } from './entitlements.ts'
import { agentEntry } from './fake-entry.ts'

const never = new AbortController().signal
const selectors = (...texts: string[]): readonly Selector[] => selectorSet(texts.map(parseSelector))
const idsOf = (entitlement: Entitlement): string[] => entitlement.entries.map(({ id }) => id)

test('Entitlements.of() matches entries whose selectors are all shown, in the order of ids', () => {
  const entitlements = new Entitlements()
  entitlements.applyEntries({
    changed: [
      agentEntry('c', { selectors: ['unix:uid:1', 'unix:gid:1'] }),
      agentEntry('a', { selectors: ['unix:uid:1'] }),
      agentEntry('b', { selectors: ['unix:uid:2'] }),
      agentEntry('d', { selectors: ['unix:uid:1'], storeSvid: true }),
    ],
    removedIds: [],
  })
  assert.deepEqual(idsOf(entitlements.of(selectors('unix:uid:1', 'unix:gid:1'))), ['a', 'c'])
  assert.deepEqual(idsOf(entitlements.of(selectors('unix:uid:3'))), [])
})

test('Entitlements.applyEntries() touches the entitlements concerned and no others', () => {
  const entitlements = new Entitlements()
  const one = entitlements.of(selectors('unix:uid:1'))
  const two = entitlements.of(selectors('unix:uid:2'))
  const before = [one.version, two.version]
  entitlements.applyEntries({
    changed: [agentEntry('a', { selectors: ['unix:uid:1'] })],
    removedIds: [],
  })
  assert.deepEqual(idsOf(one), ['a'])
  assert.notEqual(one.version, before[0])
  assert.equal(two.version, before[1])
})

test('Entitlements.applyEntries() moves an entry whose selectors changed', () => {
  const entitlements = new Entitlements()
  const one = entitlements.of(selectors('unix:uid:1'))
  const two = entitlements.of(selectors('unix:uid:2'))
  const entry = agentEntry('a', { selectors: ['unix:uid:1'] })
  entitlements.applyEntries({ changed: [entry], removedIds: [] })
  entitlements.applyEntries({
    changed: [{ ...entry, selectors: selectors('unix:uid:2'), revisionNumber: 1 }],
    removedIds: [],
  })
  assert.deepEqual(idsOf(one), [])
  assert.deepEqual(idsOf(two), ['a'])
  entitlements.applyEntries({ changed: [], removedIds: ['a'] })
  assert.deepEqual(idsOf(two), [])
  assert.equal(entitlements.size, 0)
})

test('Entitlement.changedSince() wakes every follower, and at once when it is late', async () => {
  const entitlements = new Entitlements()
  const followed = entitlements.of(selectors('unix:uid:1'))
  const seen = followed.version
  const waits = [followed.changedSince(seen, never), followed.changedSince(seen, never)]
  entitlements.applyEntries({
    changed: [agentEntry('a', { selectors: ['unix:uid:1'] })],
    removedIds: [],
  })
  await Promise.all(waits)
  await followed.changedSince(seen, never)
})

test('Entitlement.changedSince() ends when its signal aborts', async () => {
  const followed = new Entitlements().of(selectors('unix:uid:1'))
  const stop = new AbortController()
  const waiting = followed.changedSince(followed.version, stop.signal)
  const reason = new Error('the workload went away')
  stop.abort(reason)
  await assert.rejects(waiting, reason)
})

test('Entitlement.memo() makes a value once for each version', () => {
  const entitlements = new Entitlements()
  const followed = entitlements.of(selectors('unix:uid:1'))
  let made = 0
  const make = (): number => (made += 1)
  assert.equal(followed.memo(make), 1)
  assert.equal(followed.memo(make), 1)
  entitlements.touchAll()
  assert.equal(followed.memo(make), 2)
})

test('Entitlements.touchFederated() touches who federates with the trust domain', () => {
  const entitlements = new Entitlements()
  const partner = parseTrustDomain('partner.example')
  entitlements.applyEntries({
    changed: [
      agentEntry('a', { selectors: ['unix:uid:1'], federatesWith: [partner] }),
      agentEntry('b', { selectors: ['unix:uid:2'] }),
    ],
    removedIds: [],
  })
  const one = entitlements.of(selectors('unix:uid:1'))
  const two = entitlements.of(selectors('unix:uid:2'))
  const before = [one.version, two.version]
  entitlements.touchFederated(new Set([partner]))
  assert.notEqual(one.version, before[0])
  assert.equal(two.version, before[1])
})

test('Entitlements forgets what nobody follows, and never what somebody follows', () => {
  const entitlements = new Entitlements()
  const followed = entitlements.of(selectors('unix:uid:1'))
  using _use = followed.use()
  const idle = entitlements.of(selectors('unix:uid:2'))
  for (let uid = 10; uid < 2_000; uid += 1) entitlements.of(selectors(`unix:uid:${uid}`))
  assert.equal(entitlements.of(selectors('unix:uid:1')), followed)
  assert.notEqual(entitlements.of(selectors('unix:uid:2')), idle)
})

test('Entitlements.isInUse() tells whether a stream shows an entry', () => {
  const entitlements = new Entitlements()
  entitlements.applyEntries({
    changed: [agentEntry('a', { selectors: ['unix:uid:1'] })],
    removedIds: [],
  })
  const followed = entitlements.of(selectors('unix:uid:1'))
  assert.equal(entitlements.isInUse('a'), false)
  {
    using _use = followed.use()
    assert.equal(entitlements.isInUse('a'), true)
  }
  assert.equal(entitlements.isInUse('a'), false)
})

test('Entitlements.of() never takes one set of selectors for another, whatever is in them', () => {
  const entitlements = new Entitlements()
  const two = entitlements.of(selectors('unix:path:/app', 'unix:uid:1'))
  for (const separator of ['\n', ',', '","', '\0']) {
    const one = entitlements.of(selectors(`unix:path:/app${separator}unix:uid:1`))
    assert.notEqual(one, two)
    assert.equal(one.selectors.size, 1)
  }
})
