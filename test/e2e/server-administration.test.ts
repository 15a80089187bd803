import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { nextTurn } from '#base/event-loop.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { connectTls } from '#rpc/client.ts'
import { InventoryDefinition, State } from '#rpc/gen/assay/server/v1/inventory.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { HealthDefinition } from '#rpc/gen/grpc/health/v1/health.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { DebugDefinition } from '#rpc/gen/spire/api/server/debug/v1/debug.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { LoggerDefinition } from '#rpc/gen/spire/api/server/logger/v1/logger.ts'
import { TrustDomainDefinition } from '#rpc/gen/spire/api/server/trustdomain/v1/trustdomain.ts'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import { idOf, LiveServer } from '../support/live-server.ts'
import { newTpmNode } from '../support/records.ts'

const clock = new FakeClock()
const live = await LiveServer.start({ clock })
after(() => live[Symbol.asyncDispose]())
const authorities = live.local.client(LocalAuthorityDefinition)
const bundles = live.local.client(BundleDefinition)
const inventory = live.local.client(InventoryDefinition)
const hash = (digit: string): string => digit.repeat(64)

test('GetBundle answers anybody, with the fields of the mask', async () => {
  const anonymous = live.connect().client(BundleDefinition)
  const whole = await anonymous.getBundle({})
  assert.equal(whole.trustDomain, 'example.org')
  assert.equal(whole.jwtAuthorities.length, 1)
  const part = await anonymous.getBundle({ outputMask: { sequenceNumber: true } })
  assert.deepEqual([part.trustDomain, part.x509Authorities], ['example.org', []])
  assert.equal(part.sequenceNumber, whole.sequenceNumber)
})

test('AppendBundle adds an authority once', async () => {
  const { x509Authorities } = await bundles.getBundle({})
  const same = await bundles.appendBundle({ x509Authorities })
  assert.equal(same.x509Authorities.length, x509Authorities.length)
  await assert.rejects(bundles.appendBundle({}), { code: 'invalid-argument' })
  await assert.rejects(
    bundles.appendBundle({ x509Authorities: [{ asn1: Uint8Array.of(48, 0) }] }),
    { code: 'invalid-argument' },
  )
})

test('federated bundles are created, updated and deleted one by one', async () => {
  const { x509Authorities } = await bundles.getBundle({})
  const bundle = [
    { trustDomain: 'a.org', x509Authorities },
    { trustDomain: 'example.org', x509Authorities },
    { trustDomain: 'B.org', x509Authorities },
  ]
  const code = (results: readonly { status?: { code: number } | undefined }[]): unknown[] =>
    results.map(({ status }) => status?.code)
  const created = await bundles.batchCreateFederatedBundle({ bundle })
  assert.deepEqual(code(created.results), [0, 3, 3])
  const again = await bundles.batchCreateFederatedBundle({ bundle: bundle.slice(0, 1) })
  assert.deepEqual(code(again.results), [6])
  const updated = await bundles.batchUpdateFederatedBundle({
    bundle: [{ trustDomain: 'a.org', refreshHint: 60 }, { trustDomain: 'none.org' }],
    inputMask: { refreshHint: true },
  })
  assert.deepEqual(code(updated.results), [0, 5])
  assert.equal(updated.results[0]?.bundle?.x509Authorities.length, 1)
  assert.equal(updated.results[0]?.bundle?.refreshHint, 60)
  const listed = await bundles.listFederatedBundles({})
  assert.deepEqual(
    listed.bundles.map(({ trustDomain }) => trustDomain),
    ['a.org'],
  )
  assert.equal((await bundles.countBundles({})).count, 2)
  const deleted = await bundles.batchDeleteFederatedBundle({
    trustDomains: ['a.org', 'a.org', 'example.org'],
  })
  assert.deepEqual(code(deleted.results), [0, 5, 3])
})

test('authorities are prepared, activated, tainted and revoked by hand; connections live on until then', async () => {
  const agent = await live.attest()
  const client = agent.connection.client(BundleDefinition)
  await client.getBundle({})
  const before = await authorities.getX509AuthorityState({})
  assert.equal(before.prepared, undefined)
  await assert.rejects(
    authorities.activateX509Authority({ authorityId: before.active?.authorityId ?? '' }),
    { code: 'failed-precondition' },
  )
  const { preparedAuthority } = await authorities.prepareX509Authority({})
  const authorityId = preparedAuthority?.authorityId ?? ''
  await assert.rejects(authorities.taintX509Authority({ authorityId }), {
    code: 'invalid-argument',
  })
  await authorities.activateX509Authority({ authorityId })
  const after = await authorities.getX509AuthorityState({})
  assert.equal(after.active?.authorityId, authorityId)
  assert.equal(after.old?.authorityId, before.active?.authorityId)
  const old = { authorityId: before.active?.authorityId ?? '' }
  await assert.rejects(authorities.revokeX509Authority(old), { code: 'failed-precondition' })

  const shown = async (): Promise<string> => {
    let authorityKeyId = ''
    using connection = connectTls({
      host: '127.0.0.1',
      port: live.server.port ?? 0,
      clock,
      verifyServer: ([leaf = new Uint8Array()]) => {
        authorityKeyId = parseCertificate(leaf).authorityKeyId?.toHex() ?? ''
      },
    })
    await connection.connect({ signal: AbortSignal.timeout(5000) })
    return authorityKeyId
  }
  assert.equal(await shown(), old.authorityId)
  const tainted = await authorities.taintX509Authority(old)
  assert.equal(tainted.taintedAuthority?.authorityId, old.authorityId)
  while ((await shown()) !== authorityId) await nextTurn()
  // The agent's SVID is of the old authority, and its connection of before both.
  await client.getBundle({})
  await authorities.revokeX509Authority(old)
  await assert.rejects(client.getBundle({}, { timeoutMs: 1000 }))
  const { x509Authorities } = await bundles.getBundle({})
  assert.equal(x509Authorities.length, 1)
})

test('JWT authorities go the same way', async () => {
  const { active } = await authorities.getJWTAuthorityState({})
  const { preparedAuthority } = await authorities.prepareJWTAuthority({})
  await authorities.activateJWTAuthority({ authorityId: preparedAuthority?.authorityId ?? '' })
  const old = { authorityId: active?.authorityId ?? '' }
  await authorities.taintJWTAuthority(old)
  const { jwtAuthorities } = await bundles.getBundle({})
  assert.equal(jwtAuthorities.find(({ keyId }) => keyId === old.authorityId)?.tainted, true)
  await authorities.revokeJWTAuthority(old)
  assert.equal((await bundles.getBundle({})).jwtAuthorities.length, 1)
  await assert.rejects(authorities.taintX509UpstreamAuthority({}), { code: 'failed-precondition' })
  await assert.rejects(authorities.getWITAuthorityState({}), { code: 'unimplemented' })
})

test('Keys tells what the key manager holds and what happens to it next', async () => {
  const status = await live.local.client(KeysDefinition).getStatus({})
  assert.equal(status.state, 'ok')
  assert.equal(status.where, 'memory')
  const active = status.keys.filter(({ state }) => state === 'active')
  assert.deepEqual(active.map(({ purpose }) => purpose).sort(), ['jwt', 'x509-ca'])
  assert.equal(active[0]?.nextEvent, 'is replaced')
  await assert.rejects(live.local.client(KeysDefinition).resume({}), {
    code: 'failed-precondition',
  })
})

test('Inventory imports all or nothing, lists, and finds by prefix', async () => {
  const records = [{ endorsementKeyHash: hash('a'), nodeName: 'one' }]
  assert.deepEqual(await inventory.import({ records, dryRun: true }), {
    created: 1,
    updated: 0,
    unchanged: 0,
  })
  assert.deepEqual((await inventory.list({})).records, [])
  await assert.rejects(inventory.import({ records: [...records, { endorsementKeyHash: 'xyz' }] }), {
    code: 'invalid-argument',
  })
  await assert.rejects(inventory.import({ records: [...records, ...records] }), {
    code: 'invalid-argument',
  })
  assert.deepEqual((await inventory.list({})).records, [])
  await inventory.import({ records })
  assert.deepEqual(await inventory.import({ records }), { created: 0, updated: 0, unchanged: 1 })
  const { records: listed } = await inventory.list({ state: State.ALLOWED })
  assert.equal(listed[0]?.nodeName, 'one')
  assert.ok((listed[0]?.firstSeen ?? 0) > 0)
  const banned = await inventory.setState({
    endorsementKeyHash: 'a'.repeat(8),
    state: State.BANNED,
  })
  assert.deepEqual([banned.state, banned.nodeName], [State.BANNED, 'one'])
  for (const [endorsementKeyHash, state, code] of [
    ['a'.repeat(7), State.ALLOWED, 'invalid-argument'],
    ['b'.repeat(8), State.ALLOWED, 'not-found'],
    [`${'b'.repeat(63)}x`, State.ALLOWED, 'invalid-argument'],
    [hash('a'), State.PENDING, 'invalid-argument'],
    [hash('a'), State.STATE_UNSPECIFIED, 'invalid-argument'],
  ] as const) {
    await assert.rejects(inventory.setState({ endorsementKeyHash, state }), { code })
  }
  await inventory.import({ records: [{ endorsementKeyHash: `${'a'.repeat(63)}b` }] })
  await assert.rejects(
    inventory.setState({ endorsementKeyHash: 'a'.repeat(8), state: State.ALLOWED }),
    { code: 'invalid-argument', message: /2 TPMs/ },
  )
  await inventory.setState({ endorsementKeyHash: hash('a'), state: State.ALLOWED })
  await assert.rejects(inventory.setState({ endorsementKeyHash: hash('a'), state: State.DENIED }), {
    code: 'failed-precondition',
  })
})

test('Inventory takes the whole hash of a TPM that was never seen, and forgets one', async () => {
  const states = [
    ['7', State.ALLOWED],
    ['8', State.DENIED],
    ['9', State.BANNED],
  ] as const
  for (const [digit, state] of states) {
    const of = { endorsementKeyHash: hash(digit), state, nodeName: `n${digit}` }
    const record = await inventory.setState(of)
    assert.deepEqual([record.state, record.nodeName], [state, `n${digit}`])
    assert.equal((await live.datastore.inventoryRecord(hash(digit)))?.nodeName, `n${digit}`)
  }
  const agentId = await putTpmNode(hash('9'))
  await inventory.delete({ endorsementKeyHash: '9'.repeat(8) })
  assert.equal(await live.datastore.inventoryRecord(hash('9')), undefined)
  assert.equal(await live.datastore.node(agentId), undefined)
  await assert.rejects(inventory.delete({ endorsementKeyHash: hash('9') }), { code: 'not-found' })
})

/** The node of a TPM that attested. */
async function putTpmNode(endorsementKeyHash: string): Promise<SpiffeId> {
  const node = newTpmNode(endorsementKeyHash)
  await live.datastore.putNode(node)
  return node.agentId
}

test('BanAgent bans the TPM of a node with it, and DeleteAgent lifts that', async () => {
  const agentId = await putTpmNode(hash('d'))
  const agents = live.local.client(AgentDefinition)
  const state = async () => (await live.datastore.inventoryRecord(hash('d')))?.state
  await agents.banAgent({ id: idOf(agentId) })
  assert.equal(await state(), 'banned')
  await agents.deleteAgent({ id: idOf(agentId) })
  assert.equal(await state(), 'allowed')
  await putTpmNode(hash('d'))
  await inventory.setState({ endorsementKeyHash: hash('d'), state: State.BANNED })
  await live.datastore.updateInventory(hash('d'), (one) => ({ ...one, state: 'denied' }))
  await agents.deleteAgent({ id: idOf(agentId) })
  assert.equal(await state(), 'denied')
})

test('Keys accepts a clock that was set back', async () => {
  const steady = new FakeClock()
  let hoursBack = 0
  await using server = await LiveServer.start({
    clock: {
      now: () => steady.now().subtract({ hours: hoursBack }),
      sleep: (duration, signal) => steady.sleep(duration, signal),
    },
  })
  await server.mint('/web')
  const keys = server.local.client(KeysDefinition)
  const before = steady.now().epochMilliseconds / 1000
  hoursBack = 1
  await assert.rejects(server.mint('/web'), { reason: 'clock-went-back' })
  const health = server.local.client(HealthDefinition)
  assert.equal((await health.check({})).status, 2)
  const { state, detail } = await keys.getStatus({})
  assert.equal(state, 'down')
  assert.match(detail, /^the clock says .* assay hsm accept-clock$/)
  assert.deepEqual(await keys.acceptClock({}), { now: before - 3600 })
  assert.equal((await health.check({})).status, 1)
  assert.equal((await keys.getStatus({})).state, 'ok')
  await server.mint('/web')
  assert.ok(server.lines.some((line) => line.includes('Keys/AcceptClock')))
})

test('Inventory bans the node of a TPM with it, and lifts that', async () => {
  await inventory.import({ records: [{ endorsementKeyHash: hash('c') }] })
  const agentId = await putTpmNode(hash('c'))
  await inventory.setState({ endorsementKeyHash: hash('c'), state: State.BANNED })
  assert.equal((await live.datastore.node(agentId))?.serialNumber, '')
  await inventory.setState({ endorsementKeyHash: hash('c'), state: State.ALLOWED })
  assert.equal(await live.datastore.node(agentId), undefined)
})

test('Logger changes the level and back', async () => {
  const logger = live.local.client(LoggerDefinition)
  assert.deepEqual(await logger.getLogger({}), { currentLevel: 6, launchLevel: 6 })
  assert.equal((await logger.setLogLevel({ newLevel: 4 })).currentLevel, 4)
  await assert.rejects(logger.setLogLevel({}), { code: 'invalid-argument' })
  assert.deepEqual(await logger.resetLogLevel({}), { currentLevel: 6, launchLevel: 6 })
})

test('Debug shows the server’s chain up to the root, and counts', async () => {
  const info = await live.local.client(DebugDefinition).getInfo({})
  assert.deepEqual(
    info.svidChain.map(({ id }) => `${id?.trustDomain}${id?.path}`),
    ['example.org/spire/server', 'example.org'],
  )
  assert.equal(
    info.agentsCount,
    (await live.datastore.listNodes({}, { pageSize: 0, pageToken: '' })).items.length,
  )
})

test('Health and TrustDomain answer what SPIRE’s tools ask', async () => {
  const { status } = await live.local.client(HealthDefinition).check({})
  assert.equal(status, 1)
  const { federationRelationships } = await live.local
    .client(TrustDomainDefinition)
    .listFederationRelationships({})
  assert.deepEqual(federationRelationships, [])
})

test('readiness and metrics are served over HTTP', async () => {
  const ready = await fetch(`http://127.0.0.1:${live.server.healthPort}/ready`)
  assert.equal(ready.status, 200)
  const report = (await ready.json()) as { readonly checks: object }
  assert.deepEqual(Object.keys(report.checks), [
    'datastore',
    'key-manager',
    'authorities',
    'server-svid',
  ])
  await live.createEntry({
    parent: parseSpiffeId('spiffe://example.org/node'),
    path: '/counted/a',
    selectors: ['unix:uid:1'],
  })
  const metrics = await (await fetch(`http://127.0.0.1:${live.server.metricsPort}/metrics`)).text()
  assert.match(
    metrics,
    /assay_rpc_duration_seconds_count\{service="Bundle",method="GetBundle",code="OK"\} \d/,
  )
  assert.match(
    metrics,
    /assay_attestations_total\{kind="node",attestor="join_token",outcome="allowed",reason=""\} 1/,
  )
  assert.match(metrics, /assay_expiry_timestamp_seconds\{what="x509-ca"\} \d/)
  assert.match(metrics, /assay_rotation_timestamp_seconds\{what="server-svid"\} \d/)
  assert.match(metrics, /^assay_namespace_entries\{namespace="counted"\} 1$/m)
  assert.doesNotMatch(metrics, /^assay_server_reachable /m, 'a server has no server')
})
