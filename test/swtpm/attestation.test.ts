import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createTpmNodeAttestor as createAgentAttestor } from '#agent/plugin/node-attestor/tpm.ts'
import { SystemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import {
  createTpmNodeAttestor as createServerAttestor,
  type TpmNodeAttestorOptions,
} from '#server/plugin/node-attestor/tpm.ts'
import type { TpmClock } from '#server/plugin/node-attestor/tpm-inventory.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { loadTpmDescription } from '#tpm/device/description.ts'
import { type EndorsementKeyProfileName, endorsementKeyProfiles } from '#tpm/wire/templates.ts'
import { type Swtpm, startSwtpm, startTestTpm, testTpmAuthorities } from '../support/swtpm.ts'
import { clear, loadedHandles, openTpm, pcrExtend } from '../support/tpm-commands.ts'
import {
  agentExchange,
  attest,
  MemoryTpmInventory,
  outcomeOf,
  serverExchange,
} from '../support/tpm-exchange.ts'

const trustDomain = parseTrustDomain('example.org')
const environment = { clock: new SystemClock(), random: new SystemRandom(), log: silentLog }

function agentFor(tpm: Swtpm, endorsementKey?: EndorsementKeyProfileName) {
  return createAgentAttestor({ ...environment, tcti: tpm.tcti, trustDomain, endorsementKey })
}

async function newServer(options: Partial<TpmNodeAttestorOptions> = {}) {
  const inventory = new MemoryTpmInventory()
  const attestor = createServerAttestor({
    ...environment,
    trustDomain,
    endorsementAuthorities: await testTpmAuthorities(),
    allow: 'endorsement_ca',
    inventory,
    ...options,
  })
  const clock = (): TpmClock | undefined => [...inventory.records.values()][0]?.clock
  return { inventory, attestor, clock }
}

for (const { name } of endorsementKeyProfiles)
  test(`a node attests with endorsement key ${name} and leaves nothing in its TPM`, async () => {
    await using tpm = await startTestTpm()
    const { attestor, clock } = await newServer()
    const { confirm: _confirm, ...node } = await attest(agentFor(tpm, name), attestor)
    const { endorsementKey } = await loadTpmDescription(tpm.tcti, {
      ...environment,
      endorsementKey: name,
    })
    const zeros = '0'.repeat(64)
    const pcrs = [0, 1, 14, 2, 3, 4, 5, 6, 7, 9].map((index) => `tpm:pcr:sha256:${index}:${zeros}`)
    const facts = ['firmware:8217.4131.22.13878', 'manufacturer:00001014', 'model:swtpm']
    assert.deepEqual(node, {
      agentId: `spiffe://example.org/spire/agent/tpm/${endorsementKey.hash}`,
      selectors: [
        `tpm:ek:${endorsementKey.hash}`,
        ...facts.map((fact) => `tpm:${fact}`),
        ...pcrs,
      ].sort(),
      canReattest: true,
    })
    assert.ok((clock()?.clock ?? 0n) > 0n)
    assert.deepEqual(await loadedHandles(tpm.tcti), [])
  })

test('a node waits for approval by its hash, and then has the name it was given', async () => {
  await using tpm = await startTestTpm()
  const { attestor, inventory } = await newServer({
    allow: 'inventory',
    endorsementAuthorities: [],
  })
  const agent = agentFor(tpm)
  assert.equal(await outcomeOf(() => attest(agent, attestor)), 'endorsement-key-pending')
  const { endorsementKey } = await loadTpmDescription(tpm.tcti, environment)
  assert.deepEqual(inventory.knocks, [
    {
      hash: endorsementKey.hash,
      address: '192.0.2.7',
      description: 'IBM SW   TPM firmware 8217.4131.22.13878',
    },
  ])
  inventory.approve(endorsementKey.hash, 'rack-7/node-3')
  const node = await attest(agent, attestor)
  const text = node.selectors.filter((selector) => !selector.startsWith('tpm:pcr:'))
  assert.deepEqual(text, [
    `tpm:ek:${endorsementKey.hash}`,
    'tpm:firmware:8217.4131.22.13878',
    'tpm:node:rack-7/node-3',
  ])
})

test('the PCR values quoted become selectors, also when one is extended while it is read', async () => {
  await using tpm = await startTestTpm()
  const { attestor } = await newServer({ pcrs: [0, 7, 16] })
  await using other = await openTpm(tpm.tcti)
  await other.execute(pcrExtend(7))
  const node = await attest(agentFor(tpm), attestor)
  const [, first, second] = node.selectors.filter((selector) => selector.startsWith('tpm:pcr:'))
  assert.equal(first, `tpm:pcr:sha256:16:${'0'.repeat(64)}`)
  assert.match(second ?? '', /^tpm:pcr:sha256:7:(?!0{64})[0-9a-f]{64}$/)
})

test('a node keeps its identity when its TPM is reset, and its resets are counted', async () => {
  await using tpm = await startTestTpm()
  const { attestor, clock } = await newServer()
  const before = await attest(agentFor(tpm), attestor)
  const resets = clock()?.resetCount ?? 0
  tpm.signal('SIGTERM')
  await tpm.ended
  await using again = await startSwtpm(tpm.directory)
  const after = await attest(agentFor(again), attestor)
  assert.equal(after.agentId, before.agentId)
  assert.equal(clock()?.resetCount, resets + 1)
})

test('a TPM whose state was put back is refused: its resets have become fewer', async () => {
  await using tpm = await startTestTpm()
  const { attestor, inventory } = await newServer()
  await attest(agentFor(tpm), attestor)
  tpm.signal('SIGTERM')
  await tpm.ended
  await using again = await startSwtpm(tpm.directory)
  await attest(agentFor(again), attestor)
  await using snapshot = await startTestTpm()
  assert.equal(
    await outcomeOf(() => attest(agentFor(snapshot), attestor)),
    'clock-reset-count-fell',
  )
  for (const hash of inventory.records.keys()) inventory.approve(hash)
  assert.equal(await outcomeOf(() => attest(agentFor(snapshot), attestor)), 'accepted')
})

test('a node whose TPM was cleared waits for a new approval and keeps its identity', async () => {
  await using tpm = await startTestTpm()
  const { attestor, inventory } = await newServer()
  const before = await attest(agentFor(tpm), attestor)
  {
    await using owner = await openTpm(tpm.tcti)
    await owner.execute(clear)
  }
  assert.equal(await outcomeOf(() => attest(agentFor(tpm), attestor)), 'clock-reset-count-fell')
  for (const hash of inventory.records.keys()) inventory.approve(hash)
  const after = await attest(agentFor(tpm), attestor)
  assert.equal(after.agentId, before.agentId)
})

test('a TPM cannot answer the challenge to another', async () => {
  await using one = await startTestTpm('node-1')
  await using two = await startTestTpm('node-2')
  const { attestor } = await newServer()
  await using honest = await agentFor(one).attest(agentExchange())
  await using relay = await agentFor(two).attest(agentExchange())
  const exchange = serverExchange(honest.payload, (challenge) => relay.respond(challenge))
  assert.equal(await outcomeOf(() => attestor.attest(exchange)), 'tpm-error')
})

test('attestations at the same time take turns at the TPM', async () => {
  await using tpm = await startTestTpm()
  const { attestor } = await newServer()
  const agent = agentFor(tpm)
  const nodes = await Promise.all([1, 2, 3].map(() => attest(agent, attestor)))
  assert.equal(new Set(nodes.map(({ agentId }) => agentId)).size, 1)
})

test('an aborted attestation ends with the reason, frees the TPM, and is no failure of it', async () => {
  await using tpm = await startTestTpm()
  const { attestor } = await newServer()
  const agent = agentFor(tpm)
  const stop = new AbortController()
  const reason = new Error('the server went away')
  {
    await using attestation = await agent.attest(agentExchange(undefined, stop.signal))
    const exchange = serverExchange(attestation.payload, async (challenge) => {
      stop.abort(reason)
      return await attestation.respond(challenge)
    })
    await assert.rejects(attestor.attest(exchange), reason)
  }
  assert.deepEqual(agent.status(), { state: 'ok', detail: '' })
  assert.deepEqual(await loadedHandles(tpm.tcti), [])
  assert.equal(await outcomeOf(() => attest(agent, attestor)), 'accepted')
})
