import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { FeedDefinition, type Update } from '#rpc/gen/assay/server/v1/feed.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { OverviewDefinition } from '#rpc/gen/assay/server/v1/overview.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { csrOf, idOf, LiveServer, type TestAgent } from '../support/live-server.ts'

const clock = new FakeClock()
const live = await LiveServer.start({ clock })
after(() => live[Symbol.asyncDispose]())
const admin = live.local.client(EntryDefinition)

/** A stream of an agent; each update is read when the test asks for it. */
class Watching implements AsyncDisposable {
  readonly #stop = new AbortController()
  readonly #updates: AsyncIterator<Update>

  constructor(agent: TestAgent, agentVersion = '') {
    this.#updates = agent.connection
      .client(FeedDefinition)
      .watch({ agentVersion, bundleSequenceNumber: 0n }, { signal: this.#stop.signal })
      [Symbol.asyncIterator]()
  }

  async next(): Promise<Update> {
    const { value, done } = await this.#updates.next()
    if (done === true) throw new Error('the stream has ended')
    return value
  }

  /** Updates until one satisfies the condition: several changes may come in one update or in many. */
  async until(condition: (update: Update) => boolean): Promise<Update> {
    for (;;) {
      const update = await this.next()
      if (condition(update)) return update
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the test is over'))
    await this.#updates.next().catch(() => {})
  }
}

const ids = (update: Update): string[] => update.entries.map(({ id }) => id).sort()

test('Watch begins with everything, then tells what changes as it happens', async () => {
  const agent = await live.attest()
  const first = await live.createEntry({ parent: agent.id, path: '/first' })
  await using watching = new Watching(agent, '9.9')
  const complete = await watching.next()
  assert.equal(complete.complete, true)
  assert.deepEqual(ids(complete), [first.id])
  assert.equal(complete.bundle?.x509Authorities.length, 1)
  assert.equal(complete.serverTimeMs, clock.now().epochMilliseconds)
  assert.equal((await live.datastore.node(agent.id))?.agentVersion, '9.9')

  const second = await live.createEntry({ parent: agent.id, path: '/second' })
  const created = await watching.next()
  assert.equal(created.complete, false)
  assert.deepEqual(ids(created), [second.id])
  assert.equal(created.bundle, undefined)
  assert.ok(created.revision > complete.revision)

  await admin.batchUpdateEntry({
    entries: [{ id: first.id, hint: 'changed' }],
    inputMask: { hint: true },
  })
  const updated = await watching.next()
  assert.deepEqual(
    updated.entries.map(({ id, hint }) => ({ id, hint })),
    [{ id: first.id, hint: 'changed' }],
  )

  await admin.batchDeleteEntry({ ids: [second.id] })
  const deleted = await watching.next()
  assert.deepEqual(deleted.removedEntryIds, [second.id])
  assert.deepEqual(deleted.entries, [])
})

test('Watch tells nothing of what concerns other agents', async () => {
  const agent = await live.attest()
  const other = await live.attest()
  await using watching = new Watching(agent)
  await watching.next()
  await live.createEntry({ parent: other.id, path: '/other' })
  const mine = await live.createEntry({ parent: agent.id, path: '/mine' })
  assert.deepEqual(ids(await watching.next()), [mine.id])
})

test('Watch puts changes together that come while the agent reads', async () => {
  const agent = await live.attest()
  await using watching = new Watching(agent)
  await watching.next()
  const entries = Array.from({ length: 50 }, (_, i) => ({
    id: `burst-${i}`,
    parentId: idOf(agent.id),
    spiffeId: { trustDomain: 'example.org', path: `/burst/${i}` },
    selectors: [{ type: 'unix', value: 'uid:1' }],
  }))
  await admin.batchCreateEntry({ entries })
  const told = new Set<string>()
  while (told.size < entries.length) for (const id of ids(await watching.next())) told.add(id)
  await admin.batchDeleteEntry({ ids: entries.map(({ id }) => id) })
})

test('Watch tells of bundles: the own one, and those the agent’s entries federate with', async () => {
  const agent = await live.attest()
  const bundles = live.local.client(BundleDefinition)
  const { x509Authorities } = await bundles.getBundle({})
  await bundles.batchSetFederatedBundle({
    bundle: [{ trustDomain: 'partner.org', x509Authorities }],
  })
  await using watching = new Watching(agent)
  assert.deepEqual((await watching.next()).federatedBundles, [])
  const entry = await live.createEntry({
    parent: agent.id,
    path: '/federates',
    more: { federatesWith: ['partner.org'] },
  })
  const federated = await watching.next()
  assert.deepEqual(
    federated.federatedBundles.map(({ trustDomain }) => trustDomain),
    ['partner.org'],
  )
  await bundles.batchSetFederatedBundle({
    bundle: [{ trustDomain: 'partner.org', x509Authorities, refreshHint: 60 }],
  })
  assert.equal((await watching.next()).federatedBundles[0]?.refreshHint, 60)
  await admin.batchDeleteEntry({ ids: [entry.id] })
  assert.deepEqual((await watching.next()).removedFederatedTrustDomains, ['partner.org'])

  await live.local.client(LocalAuthorityDefinition).prepareX509Authority({})
  const own = await watching.until(({ bundle }) => bundle !== undefined)
  assert.equal(own.bundle?.x509Authorities.length, 2)
})

test('Watch sends an update when nothing has changed for a while', async () => {
  const agent = await live.attest()
  await using watching = new Watching(agent)
  await watching.next()
  const heartbeat = watching.next()
  await clock.advance(Temporal.Duration.from({ seconds: 50 }))
  const update = await heartbeat
  assert.deepEqual([update.complete, update.entries.length], [false, 0])
})

test('Watch ends when the agent is banned, and says so', async () => {
  const agent = await live.attest()
  await using watching = new Watching(agent)
  await watching.next()
  const ended = assert.rejects(watching.next(), {
    code: 'permission-denied',
    reason: 'agent-banned',
  })
  await live.local.client(AgentDefinition).banAgent({ id: idOf(agent.id) })
  await ended
})

test('Watch ends when the agent is deleted', async () => {
  const agent = await live.attest()
  await using watching = new Watching(agent)
  await watching.next()
  const ended = assert.rejects(watching.next(), { reason: 'agent-not-attested' })
  await live.local.client(AgentDefinition).deleteAgent({ id: idOf(agent.id) })
  await ended
})

test('Watch ends when a renewed SVID has taken the place of the stream’s', async () => {
  const agent = await live.attest()
  await using watching = new Watching(agent)
  await watching.next()
  const key = generateEcKeyPair('ec-p256')
  const { svid } = await agent.connection
    .client(AgentDefinition)
    .renewAgent({ params: { csr: csrOf(key) } })
  const renewed = live.connect({ key: key.privateKey, certificates: svid?.certChain ?? [] })
  await renewed.client(AgentDefinition).postStatus({})
  await assert.rejects(
    watching.until(() => false),
    { reason: 'agent-not-active' },
  )
})

test('Watch ends when the agent’s SVID expires', async () => {
  const agent = await live.attest()
  await using watching = new Watching(agent)
  await watching.next()
  const ended = assert.rejects(
    watching.until(() => false),
    { code: 'permission-denied', reason: 'agent-expired' },
  )
  await clock.advance(Temporal.Duration.from({ hours: 1, seconds: 1 }))
  await ended
})

test('Report is what the server knows of a node, whatever it knew before', async () => {
  const agent = await live.attest()
  const feed = agent.connection.client(FeedDefinition)
  const keys = live.local.client(KeysDefinition)
  const ask = async () => {
    const { propagation, keys: all } = await keys.getStatus({})
    const x509 = all.find(({ purpose, state }) => purpose === 'x509-ca' && state === 'active')
    const lacks = propagation?.lacking.includes(agent.id)
    return { lacks, sequence: propagation?.bundleSequenceNumber ?? 0n, x509 }
  }
  const before = await ask()
  assert.equal(before.lacks, true)
  const held = before.x509?.svids ?? 0
  assert.ok(held >= 1, 'its own SVID')
  const expiresAt = (before.x509?.signedUntil ?? 0) - 1
  const authorities = [{ authorityId: before.x509?.authorityId ?? '', svids: 6, expiresAt }]
  const firstExpiresAt = expiresAt - 5
  await feed.report({ bundleSequenceNumber: before.sequence, authorities, firstExpiresAt })
  const { firstBreak } = await live.local.client(OverviewDefinition).get({})
  assert.equal(firstBreak?.agentId, agent.id)
  assert.equal(firstBreak?.expiresAt, firstExpiresAt)
  const after = await ask()
  assert.equal(after.lacks, false)
  assert.equal(after.x509?.svids, held + 5)
  await feed.report({ bundleSequenceNumber: before.sequence - 1n, authorities: [] })
  assert.equal((await ask()).lacks, true)
})

test('Report is refused where it says more than there can be, and to who is no agent', async () => {
  const agent = await live.attest()
  const feed = agent.connection.client(FeedDefinition)
  const use = { authorityId: 'aa', svids: 1, expiresAt: 1 }
  for (const [authorities, message] of [
    [Array.from({ length: 257 }, () => use), /more than 256 authorities/],
    [[{ ...use, svids: 1_000_001 }], /more than 1000000 SVIDs/],
    [[{ ...use, authorityId: '' }], /not lower-case hex/],
    [[{ ...use, authorityId: 'AB' }], /not lower-case hex/],
    [[{ ...use, authorityId: 'a'.repeat(129) }], /not lower-case hex/],
    [[{ ...use, expiresAt: -1 }], /no SVID expires at -1/],
    [[{ ...use, expiresAt: 253_402_300_800 }], /no SVID expires at 253402300800/],
  ] as const) {
    await assert.rejects(feed.report({ bundleSequenceNumber: 1n, authorities }), {
      code: 'invalid-argument',
      message,
    })
  }
  const { MAX_SAFE_INTEGER: never } = Number
  await assert.rejects(feed.report({ firstExpiresAt: never }), { code: 'invalid-argument' })
  const workload = live.connect(await live.mint('/workload'))
  for (const connection of [workload, live.connect(), live.local]) {
    await assert.rejects(connection.client(FeedDefinition).report({ bundleSequenceNumber: 1n }), {
      code: 'permission-denied',
    })
  }
})
