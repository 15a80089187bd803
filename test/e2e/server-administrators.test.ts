import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { AssayError } from '#base/errors.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { InventoryDefinition, State } from '#rpc/gen/assay/server/v1/inventory.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import type { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { Status } from '#rpc/gen/spire/api/types/status.ts'
import type { Partially } from '#rpc/service.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { nobody, noOtherUser } from '../support/another-user.ts'
import { csrOf, idOf, LiveServer } from '../support/live-server.ts'
import { newTpmNode } from '../support/records.ts'

// What an administrator with few rights tries, to have more.

const live = await LiveServer.start({
  settings: `
ratelimit: { attestation: false }
administrators:
  - { spiffe_id: 'spiffe://example.org/ops/web', calls: [entries, nodes, svids], spiffe_id_prefixes: ['spiffe://example.org/web/'] }
  - { spiffe_id: 'spiffe://example.org/ops/agents', calls: [nodes], spiffe_id_prefixes: ['spiffe://example.org/spire/agent/tpm'] }
  - { spiffe_id: 'spiffe://example.org/ops/entries', calls: [entries] }
  - { spiffe_id: 'spiffe://example.org/ops/nodes', calls: [nodes] }
  - { spiffe_id: 'spiffe://example.org/ops/nodes-of-web', calls: [nodes], spiffe_id_prefixes: ['spiffe://example.org/web'] }
  - { spiffe_id: 'spiffe://example.org/ops/both', calls: [nodes], spiffe_id_prefixes: ['spiffe://example.org/web'] }
  - { spiffe_id: 'spiffe://example.org/ops/both', calls: [entries], spiffe_id_prefixes: ['spiffe://example.org/other'] }
  - { unix_user: nobody, calls: [entries] }
  - { spiffe_id: 'spiffe://example.org/ops/bundles', calls: [bundles] }
  - { spiffe_id: 'spiffe://example.org/ops/bundles-of-others', calls: [bundles] }
  - { spiffe_id: 'spiffe://example.org/ops/bundles-of-others', calls: [entries], spiffe_id_prefixes: ['spiffe://example.org/other'] }
  - { spiffe_id: 'spiffe://example.org/ops/authorities', calls: [authorities] }
  - { spiffe_id: 'spiffe://example.org/ops/svids', calls: [svids] }
  - { spiffe_id: 'spiffe://example.org/web/root' }
  - { spiffe_id: 'spiffe://friends.org/ops' }
`,
})
after(() => live[Symbol.asyncDispose]())

const as = async (name: string) => live.connect(await live.mint(`/ops/${name}`))
const web = await as('web')
const entries = web.client(EntryDefinition)
const agentId = parseSpiffeId('spiffe://example.org/spire/agent/elsewhere')
const at = (path: string) => ({ trustDomain: 'example.org', path })
const entry = (path: string, more: Partially<Entry> = {}): Partially<Entry> => ({
  spiffeId: at(path),
  parentId: idOf(agentId),
  selectors: [{ type: 'unix', value: 'uid:1' }],
  ...more,
})

const inside = await live.createEntry({ parent: agentId, path: '/web/a' })
const outsider = await live.createEntry({ parent: agentId, path: '/db' })
const alike = await live.createEntry({ parent: agentId, path: '/webx' })
const privileged = await live.createEntry({
  parent: agentId,
  path: '/web/admin',
  more: { admin: true },
})
const downstream = await live.createEntry({
  parent: agentId,
  path: '/web/downstream',
  more: { downstream: true },
})
// Whoever serves /web/group may serve /db/shard.
await live.createEntry({
  parent: parseSpiffeId('spiffe://example.org/web/group/member'),
  path: '/db/shard',
})
await live.createEntry({
  parent: parseSpiffeId('spiffe://example.org/web/group'),
  path: '/web/group/member',
})

interface Item {
  readonly status?: Status | undefined
}
/** Gives the reason of the one item of a batch, which must be refused for want of a right. */
function refused({ results }: { readonly results: readonly Item[] }, why: RegExp): void {
  assert.equal(results.length, 1)
  assert.equal(results[0]?.status?.code, 7)
  assert.match(results[0]?.status?.message ?? '', /^authorization denied for method /)
  assert.match(results[0]?.status?.message ?? '', why)
}

test('entries are listed, counted and shown only as far as the prefixes go', async () => {
  const { entries: listed } = await entries.listEntries({})
  const paths = listed.map(({ spiffeId }) => spiffeId?.path)
  assert.deepEqual(paths, ['/web/a', '/web/admin', '/web/downstream', '/web/group/member'])
  assert.equal((await entries.countEntries({})).count, 4)
  const { entries: none } = await entries.listEntries({ filter: { bySpiffeId: at('/db') } })
  assert.deepEqual(none, [])
  let pageToken = ''
  const paged: (string | undefined)[] = []
  do {
    const page = await entries.listEntries({ pageSize: 1, pageToken })
    paged.push(...page.entries.map(({ spiffeId }) => spiffeId?.path))
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  assert.deepEqual(paged, paths)
  await entries.getEntry({ id: inside.id })
  for (const { id } of [outsider, alike]) {
    await assert.rejects(entries.getEntry({ id }), (error) => {
      assert.ok(error instanceof AssayError)
      assert.equal(error.reason, 'outside-prefixes')
      assert.ok(error.message.startsWith('authorization denied for method '))
      assert.doesNotMatch(error.message, /\/db|webx/)
      return true
    })
  }
})

for (const [what, path, more, why] of [
  ['of another ID', '/db/x', {}, /may touch only spiffe:\/\/example.org\/web and what is below/],
  ['of an ID that only begins alike', '/webx', {}, /may touch only/],
  ['of an ID in another case', '/Web/x', {}, /may touch only/],
  ['that is an administrator', '/web/x', { admin: true }, /admin flag/],
  ['that is a downstream server', '/web/x', { downstream: true }, /downstream flag/],
  ['of an ID that administers by configuration', '/web/root', {}, /has rights of its own/],
  ['of an ID that administers by an entry', '/web/admin', {}, /has rights of its own/],
  ['of an ID that is downstream by an entry', '/web/downstream', {}, /has rights of its own/],
  ['that others are below, two steps down', '/web/group', {}, /are below/],
] as const) {
  test(`an entry ${what} is not created by who is kept to some`, async () => {
    const given = entry(path, { ...more, selectors: [{ type: 'unix', value: 'uid:666' }] })
    const before = await live.datastore.countEntries({})
    refused(await entries.batchCreateEntry({ entries: [given], outputMask: {} }), why)
    assert.equal(await live.datastore.countEntries({}), before)
  })
}

test('an entry of an ID in other clothes is no entry at all', async () => {
  for (const path of [
    '/web/%2e%2e/db',
    '/web/../db',
    '/web//x',
    '/web/',
    '/web/x%2Fy',
    'web/x',
    '',
  ]) {
    const { results } = await entries.batchCreateEntry({ entries: [entry(path)] })
    assert.notEqual(results[0]?.status?.code, 0, path)
  }
})

test('one bad item of a batch is refused and the others are not', async () => {
  const { results } = await entries.batchCreateEntry({
    entries: [entry('/web/one'), entry('/db/two'), entry('/web/three')],
  })
  assert.deepEqual(
    results.map(({ status }) => status?.code),
    [0, 7, 0],
  )
})

for (const [what, id, change, inputMask, why] of [
  ['moved out', inside.id, entry('/db/a'), { spiffeId: true }, /may touch only/],
  ['moved in', outsider.id, entry('/web/db'), { spiffeId: true }, /may touch only/],
  ['of somebody else, without a mask', outsider.id, entry('/web/db'), undefined, /may touch only/],
  ['made an administrator', inside.id, { admin: true }, { admin: true }, /admin flag/],
  ['made a downstream server', inside.id, { downstream: true }, { downstream: true }, /downstream/],
  [
    'given an administrator’s ID',
    inside.id,
    entry('/web/root'),
    { spiffeId: true },
    /rights of its own/,
  ],
  ['put above others', inside.id, entry('/web/group'), { spiffeId: true }, /are below/],
  [
    'of an administrator, given to another process',
    privileged.id,
    { selectors: [{ type: 'unix', value: 'uid:666' }] },
    { selectors: true },
    /admin flag/,
  ],
  [
    'of an administrator, made none',
    privileged.id,
    { admin: false },
    { admin: true },
    /admin flag/,
  ],
  [
    'of a downstream server',
    downstream.id,
    { parentId: idOf(agentId) },
    { parentId: true },
    /downstream/,
  ],
] as const) {
  test(`an entry is not ${what} by who is kept to some`, async () => {
    const before = await live.datastore.entry(id)
    refused(
      await entries.batchUpdateEntry({
        entries: [{ ...change, id }],
        ...(inputMask !== undefined && { inputMask }),
      }),
      why,
    )
    assert.deepEqual(await live.datastore.entry(id), before)
  })
}

test('an entry is deleted and changed inside of the prefixes, and not outside', async () => {
  const made = await live.createEntry({ parent: agentId, path: '/web/short' })
  const { results } = await entries.batchUpdateEntry({
    entries: [{ id: made.id, hint: 'h' }],
    inputMask: { hint: true },
  })
  assert.equal(results[0]?.status?.code, 0)
  assert.equal((await entries.batchDeleteEntry({ ids: [made.id] })).results[0]?.status?.code, 0)
  for (const { id } of [outsider, alike, privileged]) {
    refused(await entries.batchDeleteEntry({ ids: [id] }), /may touch only|admin flag/)
    assert.notEqual(await live.datastore.entry(id), undefined)
  }
})

test('SVIDs are minted inside of the prefixes only, and of nobody who has rights', async () => {
  const svids = web.client(SVIDDefinition)
  const wide = (await as('svids')).client(SVIDDefinition)
  const key = generateEcKeyPair('ec-p256')
  const x509 = (path: string) => ({ csr: csrOf(key, [`spiffe://example.org${path}`]) })
  const jwt = (path: string) => ({ id: at(path), audience: ['a'] })
  await svids.mintX509SVID(x509('/web/x'))
  await svids.mintJWTSVID(jwt('/web'))
  await wide.mintX509SVID(x509('/db'))
  for (const path of ['/db', '/webx', '/web/root', '/web/admin', '/web/downstream']) {
    await assert.rejects(svids.mintX509SVID(x509(path)), { code: 'permission-denied' }, path)
    await assert.rejects(svids.mintJWTSVID(jwt(path)), { code: 'permission-denied' }, path)
  }
  for (const path of ['/web/root', '/ops/web', '/web/admin', '/web/downstream']) {
    const reason = { reason: 'needs-all-rights' }
    await assert.rejects(wide.mintX509SVID(x509(path)), reason, path)
    await assert.rejects(wide.mintJWTSVID(jwt(path)), reason, path)
  }
})

test('a right to entries makes nobody an administrator', async () => {
  const client = (await as('entries')).client(EntryDefinition)
  const { results } = await client.batchCreateEntry({
    entries: [
      entry('/db/fine'),
      entry('/db/admin', { admin: true }),
      entry('/ops/entries', { selectors: [{ type: 'unix', value: 'uid:2' }] }),
    ],
  })
  assert.deepEqual(
    results.map(({ status }) => status?.code),
    [0, 7, 7],
  )
})

test('nobody but who has all rights makes a node serve who has rights', async () => {
  const agent = await live.attest()
  const group = parseSpiffeId('spiffe://example.org/web/operators')
  const named = await live.createEntry({ parent: group, path: '/web/root' })
  const more = { admin: true }
  const flagged = await live.createEntry({ parent: group, path: '/web/operator', more })
  // Not a parent of them itself, and only until the entry is moved.
  const harmless = await live.createEntry({ parent: agent.id, path: '/web/harmless' })
  const alias = entry(idOf(group).path, { parentId: idOf(agent.id) })
  const above = entry('/web/above', { parentId: idOf(agent.id) })
  await live.createEntry({
    parent: parseSpiffeId('spiffe://example.org/web/above'),
    path: '/web/operators',
  })
  for (const name of ['entries', 'web']) {
    const connection = await as(name)
    const client = connection.client(EntryDefinition)
    for (const given of [alias, above]) {
      refused(await client.batchCreateEntry({ entries: [given] }), /serves it could serve those/)
    }
    const moved = { ...alias, id: harmless.id }
    const inputMask = { spiffeId: true }
    refused(await client.batchUpdateEntry({ entries: [moved], inputMask }), /could serve those/)
  }
  const token = web.client(AgentDefinition).createJoinToken({ ttl: 60, agentId: idOf(group) })
  await assert.rejects(token, { reason: 'needs-all-rights' })
  const served = await agent.connection.client(EntryDefinition).getAuthorizedEntries({})
  assert.deepEqual(
    served.entries.map(({ id }) => id),
    [harmless.id],
  )
  const all = live.connect(await live.mint('/web/root')).client(EntryDefinition)
  const { results } = await all.batchCreateEntry({ entries: [alias] })
  assert.equal(results[0]?.status?.code, 0)
  const ids = (await agent.connection.client(EntryDefinition).getAuthorizedEntries({})).entries
  for (const { id } of [named, flagged]) assert.ok(ids.some((one) => one.id === id))
})

test('agents are seen, banned and evicted inside of the prefixes only', async () => {
  const client = (await as('agents')).client(AgentDefinition)
  const of = async (path: string) => {
    const id = parseSpiffeId(`spiffe://example.org/spire/agent/${path}`)
    await live.datastore.putNode({ ...newTpmNode('0'), agentId: id })
    return idOf(id)
  }
  const hash = 'a'.repeat(64)
  const mine = await of(`tpm/${hash}`)
  const other = await of('tpmx/b')
  const { agents } = await client.listAgents({})
  assert.deepEqual(
    agents.map(({ id }) => id?.path),
    [mine.path],
  )
  assert.equal((await client.countAgents({})).count, 1)
  await client.getAgent({ id: mine })
  for (const call of ['getAgent', 'banAgent', 'deleteAgent'] as const) {
    await assert.rejects(client[call]({ id: other }), { reason: 'outside-prefixes' }, call)
  }
  await client.banAgent({ id: mine })
  // That would let the TPM in again, which is the inventory's.
  for (const name of ['agents', 'nodes']) {
    const evicting = (await as(name)).client(AgentDefinition).deleteAgent({ id: mine })
    await assert.rejects(evicting, { reason: 'right-missing', message: /'inventory'/ })
  }
  assert.equal((await live.datastore.inventoryRecord(hash))?.state, 'banned')
})

test('join tokens have an alias inside of the prefixes, and a value nobody chose', async () => {
  const client = web.client(AgentDefinition)
  await client.createJoinToken({ ttl: 60, agentId: at('/web/host') })
  for (const [request, reason] of [
    [{ ttl: 60 }, 'outside-prefixes'],
    [{ ttl: 60, agentId: at('/db/host') }, 'outside-prefixes'],
    [{ ttl: 60, agentId: at('/web/root') }, 'needs-all-rights'],
    [{ ttl: 60, agentId: at('/web/group') }, 'outside-prefixes'],
    [{ ttl: 60, agentId: at('/web/host'), token: 'known' }, 'needs-all-rights'],
  ] as const) {
    await assert.rejects(client.createJoinToken(request), { reason })
  }
  for (const [name, request, reason] of [
    ['nodes', { ttl: 60, agentId: at('/web/host') }, 'right-missing'],
    ['nodes-of-web', { ttl: 60, agentId: at('/web/host') }, 'right-missing'],
    ['nodes', { ttl: 60, token: 'known' }, 'needs-all-rights'],
    // A right to entries of other IDs is none to this one.
    ['both', { ttl: 60, agentId: at('/web/host') }, 'right-missing'],
  ] as const) {
    const creating = (await as(name)).client(AgentDefinition).createJoinToken(request)
    await assert.rejects(creating, { reason }, name)
  }
  await (await as('nodes')).client(AgentDefinition).createJoinToken({ ttl: 60 })
})

test('bundles that vouch for administrators are for those with all rights', async () => {
  const { x509Authorities } = await live.local.client(BundleDefinition).getBundle({})
  const bundles = (await as('bundles')).client(BundleDefinition)
  const bundle = [
    { trustDomain: 'friends.org', x509Authorities },
    { trustDomain: 'others.org', x509Authorities },
  ]
  for (const call of [
    'batchCreateFederatedBundle',
    'batchSetFederatedBundle',
    'batchUpdateFederatedBundle',
  ] as const) {
    const { results } = await bundles[call]({ bundle })
    assert.equal(results[0]?.status?.code, 7, call)
    assert.match(results[0]?.status?.message ?? '', /friends.org has administrators here/)
    assert.equal(results[1]?.status?.code, 0, call)
  }
  const appending = (await as('authorities')).client(BundleDefinition)
  await assert.rejects(appending.appendBundle({ x509Authorities }), { reason: 'needs-all-rights' })
  await live.local.client(BundleDefinition).batchSetFederatedBundle({ bundle })
})

test('with a bundle go only entries that one may delete', async () => {
  const federating = 'partners.org'
  await live.local
    .client(BundleDefinition)
    .batchSetFederatedBundle({ bundle: [{ trustDomain: federating }] })
  const more = { federatesWith: [federating] }
  const plain = await live.createEntry({ parent: agentId, path: '/other/plain', more })
  const withFlag = { federatesWith: [federating], admin: true }
  const admin = await live.createEntry({ parent: agentId, path: '/other/admin', more: withFlag })
  const trustDomains = [federating]
  const attempt = async (name: string, mode: 0 | 1 | 2) =>
    (await as(name)).client(BundleDefinition).batchDeleteFederatedBundle({ trustDomains, mode })
  for (const mode of [1, 2] as const) {
    refused(await attempt('bundles', mode), /not the right to 'entries' of each/)
    refused(await attempt('bundles-of-others', mode), /admin flag/)
  }
  assert.equal((await attempt('bundles', 0)).results[0]?.status?.code, 9)
  for (const { id } of [plain, admin]) {
    assert.deepEqual((await live.datastore.entry(id))?.federatesWith, [federating])
  }
  await live.datastore.deleteEntry(admin.id)
  const outside = await live.createEntry({ parent: agentId, path: '/db/partner', more })
  refused(await attempt('bundles-of-others', 2), /not the right to 'entries' of each/)
  await live.datastore.deleteEntry(outside.id)
  assert.equal((await attempt('bundles-of-others', 2)).results[0]?.status?.code, 0)
  assert.deepEqual((await live.datastore.entry(plain.id))?.federatesWith, [])
})

test('who is kept to some IDs cannot call what is not about single ones', async () => {
  const inventory = web.client(InventoryDefinition)
  await assert.rejects(
    inventory.setState({ endorsementKeyHash: 'b'.repeat(64), state: State.ALLOWED }),
    { reason: 'right-missing' },
  )
  const all = live.connect(await live.mint('/web/root'))
  await all.client(InventoryDefinition).list({})
})

test('a local user is let in by name, as far as the row goes', { skip: noOtherUser }, async () => {
  await chmod(live.directory, 0o755)
  const socket = join(live.directory, 'server.sock')
  await chmod(socket, 0o777)
  const assay = (...args: string[]) =>
    promisify(execFile)('bin/assay', [...args, '--socket-path', socket], nobody)
  assert.match((await assay('entry', 'count')).stdout, /^\d+ entries$/m)
  await assert.rejects(assay('agent', 'list'), {
    message: /nobody has no right to 'nodes' nor 'read'; .* \[right-missing\]/,
  })
  const record = live.audited().findLast(({ action }) => String(action).endsWith('CountEntries'))
  assert.equal(record?.['user'], 'nobody')
  assert.equal(record?.['right'], 'unix_user nobody')
})
