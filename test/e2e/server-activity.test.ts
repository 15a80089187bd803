import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import {
  ActivityDefinition,
  type Node,
  type NodesUpdate,
} from '#rpc/gen/assay/server/v1/activity.ts'
import { FeedDefinition } from '#rpc/gen/assay/server/v1/feed.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { idOf, LiveServer } from '../support/live-server.ts'

const live = await LiveServer.start({
  settings: `ratelimit: { attestation: false }
administrators:
  - { spiffe_id: spiffe://example.org/web-only, calls: [read], spiffe_id_prefixes: [spiffe://example.org/web] }
  - { spiffe_id: spiffe://example.org/reader, calls: [read] }`,
})
after(() => live[Symbol.asyncDispose]())
const activity = live.local.client(ActivityDefinition)

/** Reads a stream until `condition` holds of all nodes that it has told of. */
async function until(
  updates: AsyncIterable<NodesUpdate>,
  condition: (nodes: ReadonlyMap<string, Node>) => boolean,
): Promise<ReadonlyMap<string, Node>> {
  const nodes = new Map<string, Node>()
  for await (const update of updates) {
    if (update.complete) nodes.clear()
    for (const node of update.nodes) nodes.set(node.agentId, node)
    for (const id of update.removed) nodes.delete(id)
    if (condition(nodes)) return nodes
  }
  throw new Error('the stream has ended')
}

/** A stream that ends when it is disposed of. */
function watching(client = activity) {
  const stop = new AbortController()
  return {
    updates: client.watchNodes({}, { signal: stop.signal }),
    [Symbol.dispose]: () => stop.abort(new Error('enough seen')),
  }
}

test('GetIssued tells what was issued, and when it expires', async () => {
  const before = await activity.getIssued({})
  assert.ok(Math.abs(before.nowMs - live.clock.now().epochMilliseconds) < 60_000)
  assert.equal(before.minutes.length, 60)
  await live.attest()
  const after = await activity.getIssued({})
  const agents = ({ minutes }: typeof before): number =>
    minutes.reduce((sum, { counts }) => sum + (counts?.agent ?? 0), 0)
  assert.equal(agents(after), agents(before) + 1)
  const expiring = after.expiring.reduce((sum, { counts }) => sum + (counts?.agent ?? 0), 0)
  assert.equal(expiring + (after.expiringLater?.agent ?? 0), agents(after))
})

test('WatchNodes tells of a node that attests, connects, lacks a bundle, goes, and is banned', async () => {
  using watched = watching()
  const agent = await live.attest()
  const state = (nodes: ReadonlyMap<string, Node>): string | undefined => nodes.get(agent.id)?.state
  await until(watched.updates, (nodes) => state(nodes) === 'lacking')

  const stop = new AbortController()
  const feed = agent.connection
    .client(FeedDefinition)
    .watch({ agentVersion: '9.9' }, { signal: stop.signal })
    [Symbol.asyncIterator]()
  await feed.next()
  const { propagation } = await live.local.client(KeysDefinition).getStatus({})
  const bundleSequenceNumber = propagation?.bundleSequenceNumber ?? 0n
  await agent.connection.client(FeedDefinition).report({
    bundleSequenceNumber,
    authorities: [{ authorityId: 'ab', svids: 3, expiresAt: 2 ** 32 }],
  })
  using again = watching()
  const nodes = await until(again.updates, (all) => state(all) === 'live')
  const node = nodes.get(agent.id)
  assert.equal(node?.svids, 3)
  assert.equal(node.agentVersion, '9.9')
  assert.equal(node.attestationType, 'join_token')
  assert.match(node.address, /^127\.0\.0\.1/)
  stop.abort(new Error('it goes'))
  await feed.next().catch(() => {})

  await live.local.client(AgentDefinition).banAgent({ id: idOf(agent.id) })
  using banned = watching()
  await until(banned.updates, (all) => state(all) === 'banned')
  await live.local.client(AgentDefinition).deleteAgent({ id: idOf(agent.id) })
  using gone = watching()
  await until(gone.updates, (all) => !all.has(agent.id))
})

test('administrators who are kept to SPIFFE IDs see no other node, and not what was issued', async () => {
  const agent = await live.attest()
  const narrow = live.connect(await live.mint('/web-only')).client(ActivityDefinition)
  using watched = watching(narrow)
  const nodes = await until(watched.updates, () => true)
  assert.equal(nodes.size, 0)
  await assert.rejects(narrow.getIssued({}), { code: 'permission-denied' })

  const reader = live.connect(await live.mint('/reader')).client(ActivityDefinition)
  using all = watching(reader)
  await until(all.updates, (known) => known.has(agent.id))
  assert.equal((await reader.getIssued({})).minutes.length, 60)
})

test('agents and strangers see nothing of it', async () => {
  const agent = await live.attest()
  await assert.rejects(agent.connection.client(ActivityDefinition).getIssued({}), {
    code: 'permission-denied',
  })
  using stranger = watching(live.connect().client(ActivityDefinition))
  await assert.rejects(
    until(stranger.updates, () => true),
    { code: 'permission-denied' },
  )
})
