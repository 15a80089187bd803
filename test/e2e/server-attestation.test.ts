import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { RefusalsDefinition } from '#rpc/gen/assay/server/v1/refusals.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { csrOf, idOf, LiveServer } from '../support/live-server.ts'

const live = await LiveServer.start()
after(() => live[Symbol.asyncDispose]())
const admin = live.local.client(AgentDefinition)

async function attestationOf(params: object | undefined): Promise<unknown> {
  using connection = live.connect()
  using call = connection.client(AgentDefinition).attestAgent()
  await call.send(params === undefined ? {} : { step: { $case: 'params', value: params } })
  return await call.receive()
}

const data = { type: 'join_token', payload: utf8Bytes('never-made') }
const params = { csr: csrOf(generateEcKeyPair('ec-p256')) }

test('AttestAgent gives a node with a join token an SVID it can act with', async () => {
  const agent = await live.attest()
  const [leaf] = agent.identity.certificates
  assert.deepEqual(parseCertificate(leaf ?? new Uint8Array()).uris, [agent.id])
  const { agents } = await admin.listAgents({})
  const listed = agents.find(({ id }) => id?.path === idOf(agent.id).path)
  assert.equal(listed?.attestationType, 'join_token')
  assert.equal(listed?.canReattest, false)
  const bundle = await agent.connection.client(BundleDefinition).getBundle({})
  assert.equal(bundle.x509Authorities.length, 1)
  await agent.connection.client(AgentDefinition).postStatus({ agentVersion: '1.2.3' })
  const after = await admin.getAgent({ id: idOf(agent.id) })
  assert.equal(after.agentVersion, '1.2.3')
})

test('AttestAgent takes a join token once', async () => {
  const { value } = await admin.createJoinToken({ ttl: 60 })
  await live.attestWith(value)
  await assert.rejects(live.attestWith(value), {
    code: 'invalid-argument',
    message: 'failed to attest: join token does not exist or has already been used',
  })
})

test('of a hundred nodes that show one join token at once, one is admitted', async () => {
  const { value } = await admin.createJoinToken({ ttl: 60 })
  const attempts = await Promise.allSettled(
    Array.from({ length: 100 }, () => live.attestWith(value)),
  )
  const refused = attempts.filter((attempt) => attempt.status === 'rejected')
  assert.deepEqual(
    new Set(refused.map(({ reason }) => reason.reason)),
    new Set(['join-token-unknown']),
  )
  assert.equal(refused.length, 99)
})

for (const [what, message, expected] of [
  ['no params', undefined, /missing params/],
  ['no data', { params }, /missing attestation data/],
  ['no type', { data: { ...data, type: '' }, params }, /missing attestation data type/],
  ['no payload', { data: { type: 'join_token' }, params }, /missing attestation payload/],
  ['no CSR', { data, params: {} }, /missing CSR/],
  ['a CSR that is not one', { data, params: { csr: utf8Bytes('no') } }, /CSR/],
] as const) {
  test(`AttestAgent refuses ${what}`, async () => {
    await assert.rejects(attestationOf(message), { code: 'invalid-argument', message: expected })
  })
}

test('AttestAgent refuses a CSR whose signature is not by its key', async () => {
  const csr = csrOf(generateEcKeyPair('ec-p256'))
  csr[csr.length - 1] = (csr.at(-1) ?? 0) ^ 1
  await assert.rejects(attestationOf({ data, params: { csr } }), { code: 'invalid-argument' })
})

test('AttestAgent refuses a node attestor the server does not have', async () => {
  await assert.rejects(attestationOf({ data: { ...data, type: 'tpm' }, params }), {
    code: 'failed-precondition',
    reason: 'node-attestor-unknown',
  })
})

test('Refusals lists refused attestations, newest first, with what the node was told', async () => {
  await assert.rejects(attestationOf({ data, params }))
  const { refusals } = await live.local.client(RefusalsDefinition).list({ limit: 1 })
  assert.equal(refusals[0]?.reason, 'join-token-unknown')
  assert.equal(refusals[0]?.attestationType, 'join_token')
  assert.equal(refusals[0]?.address, '127.0.0.1')
})

test('CreateJoinToken wants a TTL and makes the alias it is asked for', async () => {
  await assert.rejects(admin.createJoinToken({}), { code: 'invalid-argument', message: /ttl/ })
  await assert.rejects(admin.createJoinToken({ ttl: 60, token: 'a/b' }), {
    code: 'invalid-argument',
  })
  const { value } = await admin.createJoinToken({
    ttl: 60,
    token: 'alias-1',
    agentId: { trustDomain: 'example.org', path: '/node/one' },
  })
  assert.equal(value, 'alias-1')
  const entries = await live.datastore.listEntries({}, { pageSize: 0, pageToken: '' })
  const [alias] = entries.items.filter(({ spiffeId }) => spiffeId.endsWith('/node/one'))
  assert.equal(alias?.parentId, 'spiffe://example.org/spire/agent/join_token/alias-1')
  assert.deepEqual(alias?.selectors, [
    'spiffe_id:spiffe://example.org/spire/agent/join_token/alias-1',
  ])
  const { id } = await live.attestWith(value)
  await admin.deleteAgent({ id: idOf(id) })
  assert.equal(await live.datastore.entry(alias?.id ?? ''), undefined)
})

test('RenewAgent gives an SVID that counts from its first use on, and ends the old one', async () => {
  const agent = await live.attest()
  const key = generateEcKeyPair('ec-p256')
  const { svid } = await agent.connection
    .client(AgentDefinition)
    .renewAgent({ params: { csr: csrOf(key) } })
  const renewed = { key: key.privateKey, certificates: svid?.certChain ?? [] }
  // The old one still counts: the reply with the new one might have been lost.
  await agent.connection.client(AgentDefinition).postStatus({ agentVersion: 'old' })
  await live.connect(renewed).client(AgentDefinition).postStatus({ agentVersion: 'new' })
  await assert.rejects(
    agent.connection.client(AgentDefinition).postStatus({ agentVersion: 'old' }),
    { code: 'permission-denied', reason: 'agent-not-active' },
  )
})

test('RenewAgent sends a node that can attest again to do so', async () => {
  const agent = await live.attest()
  await live.datastore.updateNode(agent.id, (node) => ({ ...node, canReattest: true }))
  await assert.rejects(
    agent.connection
      .client(AgentDefinition)
      .renewAgent({ params: { csr: csrOf(generateEcKeyPair('ec-p256')) } }),
    { code: 'permission-denied', reason: 'agent-must-reattest' },
  )
})

test('BanAgent stops a node at once and keeps it from attesting again; DeleteAgent lets it', async () => {
  const { value } = await admin.createJoinToken({ ttl: 60 })
  const { id, identity } = await live.attestWith(value)
  const client = live.connect(identity).client(AgentDefinition)
  await client.postStatus({})
  await admin.banAgent({ id: idOf(id) })
  await assert.rejects(client.postStatus({}), {
    code: 'permission-denied',
    reason: 'agent-banned',
  })
  await admin.createJoinToken({ ttl: 60, token: value })
  await assert.rejects(live.attestWith(value), {
    code: 'permission-denied',
    reason: 'agent-banned',
  })
  assert.equal((await admin.listAgents({ filter: { byBanned: true } })).agents.length, 1)
  await admin.deleteAgent({ id: idOf(id) })
  await assert.rejects(client.postStatus({}), { reason: 'agent-not-attested' })
  await admin.createJoinToken({ ttl: 60, token: value })
  await live.attestWith(value)
})

for (const [what, id] of [
  ['another trust domain’s', { trustDomain: 'other.org', path: '/spire/agent/x' }],
  ['a workload’s', { trustDomain: 'example.org', path: '/web' }],
  ['one without a slash', { trustDomain: 'example.org', path: '.evil.org/spire/agent/x' }],
  ['a missing', undefined],
] as const) {
  test(`GetAgent refuses ${what} ID`, async () => {
    await assert.rejects(admin.getAgent(id === undefined ? {} : { id }), {
      code: 'invalid-argument',
    })
  })
}

test('GetAgent, BanAgent and DeleteAgent tell when there is no such node', async () => {
  const id = { trustDomain: 'example.org', path: '/spire/agent/join_token/none' }
  await assert.rejects(admin.getAgent({ id }), { code: 'not-found' })
  await assert.rejects(admin.banAgent({ id }), { code: 'not-found' })
  await assert.rejects(admin.deleteAgent({ id }), { code: 'not-found' })
})

test('ListAgents filters, masks and pages', async () => {
  const { count } = await admin.countAgents({})
  const page = await admin.listAgents({ pageSize: 1, outputMask: { banned: true } })
  assert.equal(page.agents.length, 1)
  assert.notEqual(page.nextPageToken, '')
  assert.equal(page.agents[0]?.attestationType, '')
  let seen = 0
  for (let token = '', first = true; first || token !== ''; first = false) {
    const { agents, nextPageToken } = await admin.listAgents({ pageSize: 2, pageToken: token })
    seen += agents.length
    token = nextPageToken
  }
  assert.equal(seen, count)
  const early = await admin.listAgents({
    filter: { byExpiresBefore: '2020-01-01 00:00:00 +0000 +00' },
  })
  assert.deepEqual(early.agents, [])
  await assert.rejects(admin.listAgents({ filter: { byExpiresBefore: 'tomorrow' } }), {
    code: 'invalid-argument',
  })
  await assert.rejects(admin.listAgents({ filter: { bySelectorMatch: { selectors: [] } } }), {
    code: 'invalid-argument',
  })
})
