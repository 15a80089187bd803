import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { Connection } from '#rpc/client.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { EntryMask } from '#rpc/gen/spire/api/types/entry.ts'
import { syncPageSize } from '../../src/server/api/sync-authorized-entries.ts'
import { idOf, LiveServer, type TestAgent } from '../support/live-server.ts'

const live = await LiveServer.start()
after(() => live[Symbol.asyncDispose]())
const admin = live.local.client(EntryDefinition)
const agent = await live.attest()

const codes = { ok: 0, invalidArgument: 3, notFound: 5, alreadyExists: 6, failedPrecondition: 9 }
const draft = {
  parentId: idOf(agent.id),
  spiffeId: { trustDomain: 'example.org', path: '/draft' },
  selectors: [{ type: 'unix', value: 'uid:1' }],
}

test('BatchCreateEntry stores what it is given, and answers with what is there already', async () => {
  const request = { entries: [{ ...draft, hint: 'h', dnsNames: ['a.example.org'] }] }
  const first = await admin.batchCreateEntry(request)
  const made = first.results[0]?.entry
  assert.equal(first.results[0]?.status?.code, codes.ok)
  assert.equal(made?.revisionNumber, 0)
  assert.equal(made?.hint, 'h')
  assert.ok((made?.createdAt ?? 0) > 0)
  const again = await admin.batchCreateEntry(request)
  assert.equal(again.results[0]?.status?.code, codes.alreadyExists)
  assert.equal(again.results[0]?.entry?.id, made?.id)
  await admin.batchDeleteEntry({ ids: [made?.id ?? ''] })
})

test('BatchCreateEntry answers each item on its own', async () => {
  const foreign = { trustDomain: 'other.org', path: '/x' }
  const { results } = await admin.batchCreateEntry({
    entries: [
      { ...draft, selectors: [] },
      { ...draft, spiffeId: foreign },
      { ...draft, parentId: foreign },
      { ...draft, spiffeId: { trustDomain: 'example.org', path: '/spire/agent/x' } },
      { ...draft, spiffeId: { trustDomain: 'example.org', path: '' } },
      { ...draft, spiffeId: { trustDomain: 'example.org', path: '/a/../b' } },
      { ...draft, spiffeId: { trustDomain: 'example.org', path: '.evil.org/a' } },
      { ...draft, x509SvidTtl: -1 },
      { ...draft, dnsNames: ['a..b'] },
      { ...draft, federatesWith: ['nobody.org'] },
      { ...draft, id: 'chosen' },
    ],
  })
  assert.deepEqual(
    results.map(({ status }) => status?.code),
    [...new Array(9).fill(codes.invalidArgument), codes.failedPrecondition, codes.ok],
  )
  await admin.batchDeleteEntry({ ids: ['chosen'] })
})

test('BatchUpdateEntry changes the fields of its mask, and counts the revision up', async () => {
  const entry = await live.createEntry({ parent: agent.id, path: '/update', more: { hint: 'old' } })
  const { results } = await admin.batchUpdateEntry({
    entries: [{ id: entry.id, hint: 'new', x509SvidTtl: 60, admin: true }],
    inputMask: { hint: true, x509SvidTtl: true },
  })
  const updated = results[0]?.entry
  assert.equal(updated?.hint, 'new')
  assert.equal(updated?.x509SvidTtl, 60)
  assert.equal(updated?.admin, false)
  assert.equal(updated?.spiffeId?.path, '/update')
  assert.equal(updated?.revisionNumber, 1)
  const none = await admin.batchUpdateEntry({ entries: [{ ...draft, id: 'none' }] })
  assert.equal(none.results[0]?.status?.code, codes.notFound)
  const bad = await admin.batchUpdateEntry({ entries: [{ id: entry.id }] })
  assert.equal(bad.results[0]?.status?.code, codes.invalidArgument)
  await admin.batchDeleteEntry({ ids: [entry.id] })
})

test('GetEntry, ListEntries and CountEntries find, filter, mask and page', async () => {
  const paths = ['/l/1', '/l/2', '/l/3']
  const made = await Promise.all(
    paths.map((path) => live.createEntry({ parent: agent.id, path, more: { hint: path } })),
  )
  const one = await admin.getEntry({ id: made[0]?.id ?? '', outputMask: { hint: true } })
  assert.equal(one.hint, '/l/1')
  assert.equal(one.spiffeId, undefined)
  await assert.rejects(admin.getEntry({ id: 'none' }), { code: 'not-found' })
  await assert.rejects(admin.getEntry({}), { code: 'invalid-argument' })
  const found = await admin.listEntries({ filter: { byHint: '/l/2' } })
  assert.deepEqual(
    found.entries.map(({ id }) => id),
    [made[1]?.id],
  )
  const { count } = await admin.countEntries({ filter: { byParentId: idOf(agent.id) } })
  assert.equal(count, 3)
  const first = await admin.listEntries({ pageSize: 2 })
  const second = await admin.listEntries({ pageSize: 2, pageToken: first.nextPageToken })
  assert.deepEqual([first.entries.length, second.entries.length], [2, 1])
  await assert.rejects(admin.listEntries({ filter: { bySelectors: { selectors: [] } } }), {
    code: 'invalid-argument',
  })
  await assert.rejects(admin.listEntries({ pageSize: 2, pageToken: 'x y' }), {
    code: 'invalid-argument',
  })
  const deleted = await admin.batchDeleteEntry({ ids: [...made.map(({ id }) => id), 'none', ''] })
  assert.deepEqual(
    deleted.results.map(({ status }) => status?.code),
    [codes.ok, codes.ok, codes.ok, codes.notFound, codes.invalidArgument],
  )
})

test('an entry that federates needs the bundle, and BatchDeleteFederatedBundle heeds it', async () => {
  const bundles = live.local.client(BundleDefinition)
  const own = await bundles.getBundle({})
  const set = await bundles.batchSetFederatedBundle({
    bundle: [{ trustDomain: 'other.org', x509Authorities: own.x509Authorities }],
  })
  assert.equal(set.results[0]?.status?.code, codes.ok)
  const entry = await live.createEntry({
    parent: agent.id,
    path: '/federated',
    more: { federatesWith: ['other.org'] },
  })
  const got = await agent.connection
    .client(BundleDefinition)
    .getFederatedBundle({ trustDomain: 'other.org' })
  assert.equal(got.x509Authorities.length, 1)
  const restricted = await bundles.batchDeleteFederatedBundle({ trustDomains: ['other.org'] })
  assert.equal(restricted.results[0]?.status?.code, codes.failedPrecondition)
  await bundles.batchDeleteFederatedBundle({ trustDomains: ['other.org'], mode: 1 })
  await assert.rejects(admin.getEntry({ id: entry.id }), { code: 'not-found' })
  await assert.rejects(
    agent.connection.client(BundleDefinition).getFederatedBundle({ trustDomain: 'other.org' }),
    { code: 'not-found' },
  )
})

async function syncOnce(connection: Connection, request: object): Promise<unknown[]> {
  using call = connection.client(EntryDefinition).syncAuthorizedEntries()
  await call.send(request)
  call.end()
  return await Array.fromAsync(call)
}

test('SyncAuthorizedEntries sends up to a page of entries whole, and ends', async () => {
  const entry = await live.createEntry({ parent: agent.id, path: '/small' })
  const outputMask = EntryMask.create({ spiffeId: true, revisionNumber: true })
  const messages = await syncOnce(agent.connection, { outputMask })
  assert.equal(messages.length, 1)
  const [message] = messages as { entries: { id: string; selectors: unknown[] }[]; more: boolean }[]
  assert.deepEqual(
    message?.entries.map(({ id, selectors }) => ({ id, selectors })),
    [{ id: entry.id, selectors: [] }],
  )
  assert.equal(message?.more, false)
  await admin.batchDeleteEntry({ ids: [entry.id] })
})

test('SyncAuthorizedEntries answers an agent without entries with one empty message', async () => {
  const messages = await syncOnce(agent.connection, {})
  assert.deepEqual(messages, [{ entryRevisions: [], entries: [], more: false }])
})

test('SyncAuthorizedEntries refuses ids at first, and a mask without the revision', async () => {
  await assert.rejects(syncOnce(agent.connection, { ids: ['x'] }), { code: 'invalid-argument' })
  await assert.rejects(syncOnce(agent.connection, { outputMask: { spiffeId: true } }), {
    code: 'invalid-argument',
  })
})

test('SyncAuthorizedEntries tells revisions in pages, then what is asked for', async () => {
  const count = syncPageSize + 1
  await admin.batchCreateEntry({
    entries: Array.from({ length: count }, (_, i) => ({
      ...draft,
      id: `e${i}`,
      spiffeId: { trustDomain: 'example.org', path: `/many/${i}` },
    })),
  })
  using call = agent.connection.client(EntryDefinition).syncAuthorizedEntries()
  await call.send({})
  const first = await call.receive()
  const second = await call.receive()
  assert.deepEqual([first?.entryRevisions.length, first?.more], [syncPageSize, true])
  assert.deepEqual([second?.entryRevisions.length, second?.more], [1, false])
  assert.equal(first?.entries.length, 0)

  await call.send({ ids: ['e7', 'not-mine', 'e7', 'e8'] })
  const some = await call.receive()
  assert.deepEqual(
    some?.entries.map(({ id, spiffeId }) => `${id} ${spiffeId?.path}`),
    ['e7 /many/7', 'e8 /many/8'],
  )
  await call.send({ ids: ['not-mine'] })
  const none = await call.receive()
  assert.deepEqual([none?.entries.length, none?.more], [0, false])
  await call.send({ ids: Array.from({ length: count }, (_, i) => `e${i}`) })
  assert.deepEqual([(await call.receive())?.more, (await call.receive())?.more], [true, false])
  call.end()
  assert.equal(await call.receive(), undefined)
  const all = await agent.connection.client(EntryDefinition).getAuthorizedEntries({})
  assert.equal(all.entries.length, count)
  await admin.batchDeleteEntry({ ids: all.entries.map(({ id }) => id) })
})

test('agents are told of their own entries only', async () => {
  const other: TestAgent = await live.attest()
  await live.createEntry({ parent: other.id, path: '/theirs' })
  const mine = await live.createEntry({ parent: agent.id, path: '/mine' })
  const below = await live.createEntry({
    parent: 'spiffe://example.org/mine' as TestAgent['id'],
    path: '/below-mine',
  })
  const { entries } = await agent.connection.client(EntryDefinition).getAuthorizedEntries({})
  assert.deepEqual(entries.map(({ id }) => id).sort(), [mine.id, below.id].sort())
})
