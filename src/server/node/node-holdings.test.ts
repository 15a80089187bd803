import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import { agentId, newNode } from '../../../test/support/records.ts'
import type { AttestedNodeRecord } from '../datastore/datastore.ts'
import { asBanned } from './banned.ts'
import { NodeHoldings } from './node-holdings.ts'

const hour = 3600
const [a, b, c] = [agentId('a'), agentId('b'), agentId('c')]

function newHoldings(ids: readonly SpiffeId[] = [a, b]) {
  const clock = new FakeClock()
  const nowSeconds = (): number => Math.floor(clock.now().epochMilliseconds / 1000)
  const records = new Map<SpiffeId, AttestedNodeRecord>()
  const put = (id: SpiffeId, change: Partial<AttestedNodeRecord> = {}): void => {
    const expiresAtSeconds = nowSeconds() + hour
    records.set(id, { ...newNode('x', { expiresAtSeconds }), ...change, agentId: id })
  }
  for (const id of ids) put(id)
  const connected = new Set<SpiffeId>()
  const holdings = new NodeHoldings({
    nodes: {
      get all() {
        return records.values()
      },
      node: (id) => records.get(id),
    },
    isConnected: (id) => connected.has(id),
    clock,
  })
  holdings.opened()
  const advance = (seconds: number) => clock.advance(Temporal.Duration.from({ seconds }))
  return { holdings, records, put, connected, advance, nowSeconds }
}

const reported = (sequence: bigint) => ({
  bundleSequenceNumber: sequence,
  authorities: [],
  firstExpirySeconds: 0,
})

test('survey() counts a node that has reported the bundle, or a later one', () => {
  const { holdings } = newHoldings()
  assert.deepEqual(holdings.survey(7n), { live: 2, lacking: [a, b], away: 0 })
  holdings.report(a, reported(7n))
  holdings.report(b, reported(6n))
  assert.deepEqual(holdings.survey(7n), { live: 2, lacking: [b], away: 0 })
  holdings.report(b, reported(9n))
  assert.deepEqual(holdings.survey(7n).lacking, [])
  holdings.report(b, reported(1n))
  assert.deepEqual(holdings.survey(7n).lacking, [b], 'an agent that began anew has what it says')
})

test('survey() takes a bundle for taken over when an agent that does not report asks again', () => {
  const { holdings } = newHoldings([a])
  holdings.bundleServed(a, 7n)
  assert.deepEqual(holdings.survey(7n).lacking, [a], 'being given is not having')
  holdings.bundleServed(a, 7n)
  assert.deepEqual(holdings.survey(7n).lacking, [])
  holdings.bundleServed(a, 8n)
  assert.deepEqual(holdings.survey(8n).lacking, [a])
})

test('survey() believes a report more than what was given', () => {
  const { holdings, connected } = newHoldings([a])
  connected.add(a)
  holdings.report(a, reported(6n))
  holdings.bundleServed(a, 7n)
  holdings.bundleServed(a, 7n)
  assert.deepEqual(holdings.survey(7n).lacking, [a])
})

test('standing() tells one node from the next as survey() does, and counts its SVIDs', async () => {
  const { holdings, put, connected, advance, nowSeconds, records } = newHoldings([a])
  const state = (): string => holdings.standing(record(), 7n).state
  const record = (): AttestedNodeRecord => {
    const found = records.get(a)
    assert.ok(found !== undefined)
    return found
  }
  assert.equal(state(), 'lacking')
  holdings.report(a, {
    bundleSequenceNumber: 7n,
    firstExpirySeconds: 0,
    authorities: [
      { authorityId: 'x', svids: 2, expiresAtSeconds: nowSeconds() + hour },
      { authorityId: 'y', svids: 3, expiresAtSeconds: nowSeconds() + 2 * hour },
    ],
  })
  assert.deepEqual(holdings.standing(record(), 7n), { state: 'live', svids: 5 })
  assert.equal(holdings.standing(record(), 8n).state, 'lacking')
  await advance(61)
  assert.equal(state(), 'away')
  connected.add(a)
  assert.equal(state(), 'live')
  await advance(hour)
  assert.deepEqual(holdings.standing(record(), 7n), { state: 'expired', svids: 3 })
  put(a, { newExpiresAtSeconds: nowSeconds() + hour })
  assert.equal(state(), 'live', 'one that was renewed is not expired')
  records.set(a, asBanned(record()))
  assert.equal(state(), 'banned')
})

test('survey() waits for every node after a start, then for those that are there', async () => {
  const { holdings, connected, advance } = newHoldings([a, b, c])
  connected.add(a)
  await advance(30)
  holdings.seen(b)
  await advance(29)
  assert.deepEqual(holdings.survey(1n), { live: 3, lacking: [a, b, c], away: 0 })
  await advance(1)
  assert.deepEqual(holdings.survey(1n), { live: 2, lacking: [a, b], away: 1 })
  await advance(30)
  assert.deepEqual(holdings.survey(1n), { live: 1, lacking: [a], away: 2 })
  holdings.seen(c)
  assert.equal(holdings.survey(1n).live, 2, 'it is back')
})

test('survey() gives every node the time to come when it can come again', async () => {
  const { holdings, connected, advance } = newHoldings([a, b])
  connected.add(a)
  await advance(100)
  assert.equal(holdings.survey(1n).away, 1)
  holdings.opened()
  assert.equal(holdings.survey(1n).away, 0, 'what kept them away is over')
  await advance(60)
  assert.equal(holdings.survey(1n).away, 1)
})

test('survey() leaves out nodes that are banned or whose SVID has expired', async () => {
  const { holdings, records, put, advance, nowSeconds } = newHoldings([a, b, c])
  const record = records.get(a)
  assert.ok(record)
  records.set(a, asBanned(record))
  put(b, { expiresAtSeconds: nowSeconds() })
  put(c, { expiresAtSeconds: nowSeconds(), newExpiresAtSeconds: nowSeconds() + 10 })
  assert.deepEqual(holdings.survey(1n), { live: 1, lacking: [c], away: 0 })
  await advance(10)
  assert.deepEqual(holdings.survey(1n), { live: 0, lacking: [], away: 0 })
})

test('firstBreak() is by what nodes say, or were given, and counts those that say nothing', async () => {
  const { holdings, advance, nowSeconds, put } = newHoldings()
  assert.deepEqual(holdings.firstBreak(), { expiresAtSeconds: 0, agentId: '', silentNodes: 2 })
  holdings.report(a, reported(1n))
  assert.deepEqual(holdings.firstBreak(), { expiresAtSeconds: 0, agentId: '', silentNodes: 1 })
  const start = nowSeconds()
  holdings.report(a, { ...reported(1n), firstExpirySeconds: start + 600 })
  const given = { authorityId: 'aa', expiresAtSeconds: start + 60 }
  holdings.handedOut(b, { ...given, entryId: '' })
  assert.deepEqual(holdings.firstBreak(), {
    expiresAtSeconds: start + 600,
    agentId: a,
    silentNodes: 1,
  })
  holdings.handedOut(b, { ...given, entryId: 'web' })
  assert.deepEqual(holdings.firstBreak(), {
    expiresAtSeconds: start + 60,
    agentId: b,
    silentNodes: 1,
  })
  await advance(60)
  assert.equal(holdings.firstBreak().agentId, a, 'what has expired breaks no more')
  put(a, { expiresAtSeconds: start, newExpiresAtSeconds: 0 })
  assert.deepEqual(holdings.firstBreak(), { expiresAtSeconds: 0, agentId: '', silentNodes: 1 })
})

test('dependents() counts what is reported, until it expires, also of a node that has gone', async () => {
  const { holdings, advance, nowSeconds } = newHoldings()
  const of = { authorityId: 'aa', sinceSeconds: nowSeconds() }
  const expiresAtSeconds = nowSeconds() + 2 * hour
  const use = { authorityId: 'aa', svids: 3, expiresAtSeconds }
  holdings.report(a, { ...reported(1n), authorities: [use] })
  holdings.report(b, { ...reported(1n), authorities: [{ ...use, authorityId: 'bb' }] })
  assert.deepEqual(
    { ...holdings.dependents(of), unknown: [] },
    { nodes: [a], svids: 3, unknown: [], server: false },
  )
  await advance(1.5 * hour)
  assert.deepEqual(holdings.dependents(of).nodes, [a], 'its workloads may outlive its own SVID')
  await advance(0.5 * hour)
  assert.deepEqual(holdings.dependents(of).nodes, [])
})

test('dependents() follows an agent that does not report by what it was given', () => {
  const { holdings, nowSeconds } = newHoldings([a])
  const of = { authorityId: 'aa', sinceSeconds: nowSeconds() }
  const svid = { authorityId: 'aa', expiresAtSeconds: nowSeconds() + hour }
  holdings.handedOut(a, { ...svid, entryId: '' })
  holdings.handedOut(a, { ...svid, entryId: 'e1' })
  assert.equal(holdings.dependents(of).svids, 2)
  holdings.handedOut(a, { ...svid, authorityId: 'bb', entryId: 'e1' })
  assert.equal(holdings.dependents(of).svids, 1, 'the SVID of the entry was replaced')
  holdings.handedOut(a, { ...svid, authorityId: 'bb', entryId: '' })
  assert.deepEqual(holdings.dependents(of).nodes, [])
  holdings.handedOut(a, { ...svid, entryId: '' })
  holdings.report(a, reported(1n))
  assert.deepEqual(holdings.dependents(of).nodes, [], 'what it says replaces what is supposed')
})

test('dependents() does not know what was handed out before the start', async () => {
  const { holdings, advance, nowSeconds } = newHoldings()
  const of = { authorityId: 'aa', sinceSeconds: nowSeconds() - 1 }
  assert.deepEqual(holdings.dependents(of).unknown, [a, b])
  holdings.report(a, reported(1n))
  holdings.bundleServed(b, 1n)
  assert.deepEqual(holdings.dependents(of).unknown, [b])
  assert.deepEqual(
    holdings.dependents({ ...of, sinceSeconds: nowSeconds() }).unknown,
    [],
    'of a younger authority everything is known',
  )
  await advance(hour)
  assert.deepEqual(holdings.dependents(of).unknown, [], 'it has nothing that is valid')
})

test('a report counts no more once the node has gone back to an agent that does not report', () => {
  const { holdings, connected, nowSeconds } = newHoldings([a])
  const older = { authorityId: 'aa', sinceSeconds: nowSeconds() }
  const svid = { authorityId: 'aa', expiresAtSeconds: nowSeconds() + hour }
  connected.add(a)
  holdings.report(a, reported(7n))
  holdings.bundleServed(a, 8n)
  holdings.handedOut(a, { ...svid, entryId: 'e1' })
  assert.deepEqual(holdings.survey(7n).lacking, [], 'it asks while its stream is open')
  assert.deepEqual(holdings.dependents(older).unknown, [])

  connected.delete(a)
  assert.deepEqual(holdings.survey(7n).lacking, [], 'it may come back')
  holdings.bundleServed(a, 8n)
  assert.deepEqual(holdings.survey(7n).lacking, [a])
  assert.deepEqual(holdings.dependents(older).unknown, [a], 'what it held was not followed')
  const younger = { ...older, sinceSeconds: nowSeconds() + 1 }
  assert.deepEqual(holdings.dependents(younger).unknown, [])
  holdings.handedOut(a, { ...svid, entryId: 'e1' })
  assert.deepEqual(holdings.dependents(younger).nodes, [a])
  holdings.bundleServed(a, 8n)
  assert.deepEqual(holdings.survey(8n).lacking, [])

  connected.add(a)
  holdings.report(a, reported(8n))
  assert.deepEqual(holdings.dependents(older), { nodes: [], svids: 0, unknown: [], server: false })
})

test('a report counts no more once an SVID is asked for without a stream', () => {
  const { holdings, nowSeconds } = newHoldings([a])
  const of = { authorityId: 'aa', sinceSeconds: nowSeconds() }
  holdings.report(a, reported(7n))
  const svid = { authorityId: 'aa', expiresAtSeconds: nowSeconds() + hour }
  holdings.handedOut(a, { ...svid, entryId: 'e1' })
  assert.deepEqual(holdings.dependents(of).nodes, [a])
})

test('dependents() has the server itself', () => {
  const { holdings, nowSeconds } = newHoldings([])
  const of = { authorityId: 'aa', sinceSeconds: nowSeconds() }
  holdings.serverUses('aa')
  assert.equal(holdings.dependents(of).server, true)
  holdings.serverUses('bb')
  assert.equal(holdings.dependents(of).server, false)
})

test('onChange() tells of what nodes report and take, and prune() forgets those that are gone', () => {
  const { holdings, records } = newHoldings()
  let told = 0
  const listening = holdings.onChange(() => told++)
  holdings.report(a, reported(1n))
  holdings.bundleServed(b, 1n)
  assert.equal(told, 2)
  listening[Symbol.dispose]()
  holdings.report(a, reported(2n))
  assert.equal(told, 2)
  const record = records.get(a)
  assert.ok(record)
  records.delete(a)
  holdings.prune()
  records.set(a, record)
  assert.deepEqual(holdings.survey(1n).lacking, [b, a])
})

test('prune() forgets SVIDs that have expired', async () => {
  const { holdings, advance, nowSeconds } = newHoldings([a])
  const [authorityId, sinceSeconds] = ['aa', nowSeconds()]
  const known = () => holdings.dependents({ authorityId, sinceSeconds }).svids
  holdings.handedOut(a, { entryId: 'one', authorityId, expiresAtSeconds: sinceSeconds + 10 })
  holdings.handedOut(a, { entryId: 'two', authorityId, expiresAtSeconds: sinceSeconds + 30 })
  await advance(20)
  holdings.prune()
  assert.equal(known(), 1)
  // Only what is kept comes back when the clock does.
  await advance(-15)
  assert.equal(known(), 1)
})

test('pqProgress() counts live nodes by their last connection, and SVIDs by their authorities', async () => {
  const { holdings, put, connected, advance, nowSeconds } = newHoldings([a, b, c])
  const svids = (authorityId: string, count: number) => ({
    ...reported(1n),
    authorities: [{ authorityId, svids: count, expiresAtSeconds: nowSeconds() + hour }],
  })
  const none = { nodes: 0, verifiedNodes: 0, hybridConnections: 0, svids: 0, hybridSvids: 0 }
  assert.deepEqual(holdings.pqProgress(new Set(['aa'])), none, 'nothing is known before a call')
  holdings.seen(a, { keyAgreement: 'X25519MLKEM768', pq: 'verified' })
  holdings.seen(b, { keyAgreement: 'X25519', pq: 'absent' })
  holdings.seen(c, { keyAgreement: 'SecP384r1MLKEM1024', pq: 'absent' })
  holdings.report(a, svids('aa', 3))
  holdings.report(b, svids('bb', 2))
  const all = { nodes: 3, verifiedNodes: 1, hybridConnections: 2, svids: 5, hybridSvids: 3 }
  assert.deepEqual(holdings.pqProgress(new Set(['aa'])), all)
  connected.add(a)
  await advance(61)
  const one = { ...all, nodes: 1, hybridConnections: 1 }
  assert.deepEqual(holdings.pqProgress(new Set(['aa'])), one, 'those that are away are not live')
  put(a, { expiresAtSeconds: 1 })
  assert.equal(holdings.pqProgress(new Set(['aa'])).hybridSvids, 0, 'nor is one that has expired')
  assert.deepEqual(holdings.connectionOf(a), { keyAgreement: 'X25519MLKEM768', pq: 'verified' })
})
