import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { Selector } from '#spiffe/selector.ts'
import { parseSpiffeId, type SpiffeId, serverId } from '#spiffe/spiffe-id.ts'
import { memoryDatastore } from '../../../test/support/memory-datastore.ts'
import {
  agentId,
  newEntry,
  newNode,
  selectors,
  testId,
  testTrustDomain,
} from '../../../test/support/records.ts'
import { below, pick, seeded } from '../../../test/support/seeded.ts'
import type { Datastore } from '../datastore/datastore.ts'
import { AuthorizedEntries } from './authorized-entries.ts'

const server = serverId(testTrustDomain)
const a = agentId('a')
const b = agentId('b')

interface Fixture extends AsyncDisposable {
  readonly store: Datastore
  readonly clock: FakeClock
  readonly index: AuthorizedEntries
}

async function loaded(...entries: readonly RegistrationEntry[]): Promise<Fixture> {
  const store = memoryDatastore()
  const clock = new FakeClock()
  await store.putNode(newNode('a', { selectors: selectors('rack-1', 'gpu') }))
  await store.putNode(newNode('b', { selectors: selectors('rack-1') }))
  for (const entry of entries) await store.createEntry(entry)
  const index = await AuthorizedEntries.load(store, { trustDomain: testTrustDomain, clock })
  return {
    store,
    clock,
    index,
    [Symbol.asyncDispose]: () => {
      index[Symbol.dispose]()
      return store[Symbol.asyncDispose]()
    },
  }
}

const idsFor = (index: AuthorizedEntries, agent: SpiffeId): readonly string[] =>
  index.entriesFor(agent).map(({ id }) => id)

/** Counts calls per agent. */
function counters(index: AuthorizedEntries): {
  readonly a: () => number
  readonly b: () => number
} {
  const calls = { a: 0, b: 0 }
  const listen = (agent: SpiffeId, key: 'a' | 'b'): void => {
    // Ends with the index.
    index.onChange(agent, () => calls[key]++)
  }
  listen(a, 'a')
  listen(b, 'b')
  return { a: () => calls.a, b: () => calls.b }
}

test('AuthorizedEntries.entriesFor() has everything below the agent, sorted by id', async () => {
  await using fixture = await loaded(
    newEntry('z', { spiffeId: testId('/service') }),
    newEntry('child', { parentId: testId('/service') }),
    newEntry('grandchild', { parentId: testId('/child') }),
    newEntry('other', { parentId: b }),
    newEntry('orphan', { parentId: testId('/nobody') }),
  )
  assert.deepEqual(idsFor(fixture.index, a), ['child', 'grandchild', 'z'])
  assert.deepEqual(idsFor(fixture.index, b), ['other'])
  assert.deepEqual(idsFor(fixture.index, agentId('unknown')), [])
})

test('AuthorizedEntries.entriesFor() follows the aliases whose selectors the node has, without them', async () => {
  await using fixture = await loaded(
    newEntry('alias', {
      parentId: server,
      spiffeId: testId('/gpus'),
      selectors: selectors('gpu', 'rack-1'),
    }),
    newEntry('alias-2', {
      parentId: server,
      spiffeId: testId('/rack'),
      selectors: selectors('rack-1'),
    }),
    newEntry('on-gpus', { parentId: testId('/gpus') }),
    newEntry('on-rack', { parentId: testId('/rack') }),
  )
  assert.deepEqual(idsFor(fixture.index, a), ['on-gpus', 'on-rack'])
  assert.deepEqual(idsFor(fixture.index, b), ['on-rack'])
})

test('AuthorizedEntries.entriesFor() ends where IDs go round in a circle', async () => {
  await using fixture = await loaded(
    newEntry('one', { spiffeId: testId('/one'), parentId: testId('/two') }),
    newEntry('two', { spiffeId: testId('/two'), parentId: testId('/one') }),
    newEntry('self', { spiffeId: testId('/self'), parentId: testId('/self') }),
    newEntry('in', { spiffeId: testId('/one') }),
  )
  assert.deepEqual(idsFor(fixture.index, a), ['in', 'one', 'two'])
})

test('AuthorizedEntries leaves out IDs of other trust domains', async () => {
  await using fixture = await loaded(
    newEntry('foreign', { spiffeId: parseSpiffeId('spiffe://b.org/x') }),
    newEntry('below', { parentId: parseSpiffeId('spiffe://b.org/x') }),
  )
  assert.deepEqual(idsFor(fixture.index, a), [])
  assert.equal(fixture.index.entry('foreign'), undefined)
})

test('AuthorizedEntries.entryFor() finds what the agent may serve and nothing else', async () => {
  const many = Array.from({ length: 50 }, (_, i) => newEntry(`e${i}`))
  await using fixture = await loaded(...many, newEntry('other', { parentId: b }))
  for (const { id } of many) assert.equal(fixture.index.entryFor(a, id)?.id, id)
  assert.equal(fixture.index.entryFor(a, 'other'), undefined)
  assert.equal(fixture.index.entryFor(a, 'e50'), undefined)
  assert.equal(fixture.index.entryFor(b, 'e1'), undefined)
  assert.equal(fixture.index.entry('other')?.id, 'other')
})

test('AuthorizedEntries.entriesFor() is the same array until something changes for the agent', async () => {
  await using fixture = await loaded(newEntry('e1'))
  const before = fixture.index.entriesFor(a)
  await fixture.store.createEntry(newEntry('e2', { parentId: b }))
  await fixture.store.updateNode(a, (node) => ({ ...node, newSerialNumber: '2' }))
  assert.equal(fixture.index.entriesFor(a), before)
  await fixture.store.updateEntry('e1', (entry) => ({ ...entry, hint: 'new' }))
  assert.equal(fixture.index.entriesFor(a)[0]?.hint, 'new')
  await fixture.store.deleteEntry('e1')
  assert.deepEqual(idsFor(fixture.index, a), [])
})

test('AuthorizedEntries.onChange() tells the agents concerned, once, and no others', async () => {
  await using fixture = await loaded(newEntry('service'))
  const calls = counters(fixture.index)
  await fixture.store.createEntry(newEntry('child', { parentId: testId('/service') }))
  assert.deepEqual([calls.a(), calls.b()], [1, 0])
  // It moves: both the agent that loses it and the one that gets it are told.
  await fixture.store.updateEntry('service', (entry) => ({ ...entry, parentId: b }))
  assert.deepEqual([calls.a(), calls.b()], [2, 1])
  assert.deepEqual(idsFor(fixture.index, a), [])
  assert.deepEqual(idsFor(fixture.index, b), ['child', 'service'])
  await fixture.store.deleteEntry('child')
  assert.deepEqual([calls.a(), calls.b()], [2, 2])
})

test('AuthorizedEntries.onChange() tells of aliases and of what is below them', async () => {
  await using fixture = await loaded()
  const calls = counters(fixture.index)
  const alias = { parentId: server, spiffeId: testId('/rack') }
  await fixture.store.createEntry(newEntry('alias', { ...alias, selectors: selectors('rack-1') }))
  assert.deepEqual([calls.a(), calls.b()], [1, 1])
  await fixture.store.createEntry(newEntry('below', { parentId: testId('/rack') }))
  assert.deepEqual([calls.a(), calls.b()], [2, 2])
  await fixture.store.updateEntry('alias', (entry) => ({ ...entry, selectors: selectors('gpu') }))
  assert.deepEqual([calls.a(), calls.b()], [3, 3])
  assert.deepEqual(idsFor(fixture.index, b), [])
  await fixture.store.updateEntry('below', (entry) => ({ ...entry, hint: 'x' }))
  assert.deepEqual([calls.a(), calls.b()], [4, 3])
})

test('AuthorizedEntries.onChange() tells when a node’s selectors change or it goes', async () => {
  await using fixture = await loaded(
    newEntry('alias', { parentId: server, spiffeId: testId('/gpus'), selectors: selectors('gpu') }),
    newEntry('below', { parentId: testId('/gpus') }),
  )
  const calls = counters(fixture.index)
  await fixture.store.updateNode(b, (node) => ({ ...node, serialNumber: '2' }))
  assert.deepEqual([calls.a(), calls.b()], [0, 0])
  await fixture.store.updateNode(b, (node) => ({ ...node, selectors: selectors('gpu') }))
  assert.deepEqual([calls.a(), calls.b()], [0, 1])
  assert.deepEqual(idsFor(fixture.index, b), ['below'])
  await fixture.store.deleteNode(b)
  assert.deepEqual([calls.a(), calls.b()], [0, 2])
  assert.deepEqual(idsFor(fixture.index, b), [])
})

test('AuthorizedEntries.onChange() is over when disposed, also of two alike', async () => {
  await using fixture = await loaded()
  let calls = 0
  const listener = (): void => void calls++
  {
    using _one = fixture.index.onChange(a, listener)
    using _two = fixture.index.onChange(a, listener)
    await fixture.store.createEntry(newEntry('e1'))
    assert.equal(calls, 2)
  }
  await fixture.store.createEntry(newEntry('e2'))
  assert.equal(calls, 2)
})

test('AuthorizedEntries lets go of an entry, and of what is below it, when it expires', async () => {
  const clock = new FakeClock()
  const expiresAtSeconds = Math.floor(clock.now().epochMilliseconds / 1000) + 60
  await using fixture = await loaded(
    newEntry('service', { expiresAtSeconds, admin: true }),
    newEntry('child', { parentId: testId('/service') }),
    newEntry('stays'),
  )
  await fixture.clock.advance(Temporal.Duration.from({ seconds: 60 }))
  assert.deepEqual(idsFor(fixture.index, a), ['child', 'service', 'stays'])
  assert.equal(fixture.index.isAdmin(testId('/service')), true)
  await fixture.clock.advance(Temporal.Duration.from({ seconds: 1 }))
  assert.deepEqual(idsFor(fixture.index, a), ['stays'])
  assert.equal(fixture.index.entryFor(a, 'service'), undefined)
  assert.equal(fixture.index.entry('service'), undefined)
  assert.equal(fixture.index.isAdmin(testId('/service')), false)
})

test('AuthorizedEntries.isAdmin() and isDownstream() look at every entry of the ID', async () => {
  await using fixture = await loaded(
    newEntry('plain', { spiffeId: testId('/x') }),
    newEntry('admin', { spiffeId: testId('/x'), parentId: b, admin: true }),
    newEntry('down', { spiffeId: testId('/y'), downstream: true }),
  )
  assert.equal(fixture.index.isAdmin(testId('/x')), true)
  assert.equal(fixture.index.isAdmin(testId('/y')), false)
  assert.equal(fixture.index.isDownstream(testId('/y')), true)
  assert.equal(fixture.index.isDownstream(testId('/x')), false)
  await fixture.store.updateEntry('admin', (entry) => ({ ...entry, admin: false }))
  assert.equal(fixture.index.isAdmin(testId('/x')), false)
})

test('AuthorizedEntries agrees with a plain reading of the rules through random changes', async () => {
  const random = seeded(3)
  await using fixture = await loaded()
  const agents = ['a', 'b', 'c', 'd'] as const
  const told = new Set<SpiffeId>()
  for (const name of agents) {
    fixture.index.onChange(agentId(name), () => told.add(agentId(name)))
  }
  const seen = new Map<SpiffeId, readonly RegistrationEntry[]>()
  for (let step = 0; step < 600; step++) {
    await randomChange(random, fixture.store, agents)
    const entries = (await fixture.store.listEntries({}, { pageSize: 0, pageToken: '' })).items
    for (const name of agents) {
      const agent = agentId(name)
      const expected = modelOf(agent, (await fixture.store.node(agent))?.selectors ?? [], entries)
      assert.deepEqual(fixture.index.entriesFor(agent), expected, `step ${step}`)
      const isChanged = JSON.stringify(seen.get(agent) ?? []) !== JSON.stringify(expected)
      assert.ok(!isChanged || told.has(agent), `step ${step}: ${agent} was not told`)
      seen.set(agent, expected)
    }
    told.clear()
  }
})

const labels = ['p', 'q', 'r', 's'] as const

async function randomChange(
  random: () => number,
  store: Datastore,
  agents: readonly string[],
): Promise<void> {
  const some = (): readonly Selector[] =>
    selectors(...new Set([pick(random, labels), pick(random, labels)]))
  const id = `e${below(random, 25)}`
  const shape = {
    parentId: pick(random, [
      server,
      agentId(pick(random, agents)),
      testId(`/${pick(random, labels)}`),
    ]),
    spiffeId: testId(`/${pick(random, labels)}`),
    selectors: some(),
  }
  const isThere = (await store.entry(id)) !== undefined
  switch (below(random, 6)) {
    case 0:
      await store.putNode(newNode(pick(random, agents), { selectors: some() }))
      break
    case 1: {
      const node = agentId(pick(random, agents))
      if ((await store.node(node)) !== undefined) await store.deleteNode(node)
      break
    }
    case 2:
      if (isThere) await store.deleteEntry(id)
      break
    default:
      if (isThere) await store.updateEntry(id, (entry) => ({ ...entry, ...shape }))
      else await store.createEntry(newEntry(id, shape))
  }
}

/** The rules, written as they are said. */
function modelOf(
  agent: SpiffeId,
  has: readonly Selector[],
  entries: readonly RegistrationEntry[],
): readonly RegistrationEntry[] {
  const isAlias = (entry: RegistrationEntry): boolean => entry.parentId === server
  const reached = new Set<SpiffeId>([agent])
  for (const entry of entries) {
    if (isAlias(entry) && entry.selectors.every((one) => has.includes(one))) {
      reached.add(entry.spiffeId)
    }
  }
  for (let before = -1; before !== reached.size; ) {
    before = reached.size
    for (const entry of entries) if (reached.has(entry.parentId)) reached.add(entry.spiffeId)
  }
  return entries
    .filter((entry) => reached.has(entry.parentId))
    .toSorted((x, y) => (x.id < y.id ? -1 : 1))
}
