import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tpmRefusals } from '#attestation/tpm-refusals.ts'
import { createTpmNodeAttestor } from '#server/plugin/node-attestor/tpm.ts'
import { MemoryTpmInventory } from '../support/tpm-exchange.ts'
import { forgeries, honest } from './forgeries.ts'
import { attempt, outcome } from './forgery.ts'

for (const scenario of honest)
  test(`the server admits the forger that does not lie ${scenario.name}`, async () => {
    const node = await attempt(
      { ...scenario, reason: 'clock-fell', without: 'accepted' },
      createTpmNodeAttestor,
    )
    assert.match(node.agentId, /^spiffe:\/\/example\.org\/spire\/agent\/tpm\/[0-9a-f]{64}$/)
  })

for (const forgery of forgeries)
  test(`the server refuses ${forgery.name}: ${forgery.reason}`, async () => {
    assert.equal(await outcome(forgery, createTpmNodeAttestor), forgery.reason)
  })

test('every reason for a refusal has a forgery that is refused for it', () => {
  const tried = new Set<string>(forgeries.map(({ reason }) => reason))
  assert.deepEqual(
    Object.keys(tpmRefusals).filter((reason) => !tried.has(reason)),
    [],
  )
})

test('an unknown endorsement key knocks with what its TPM says it is', async () => {
  const inventory = new MemoryTpmInventory()
  const pending = forgeries.find(({ reason }) => reason === 'endorsement-key-pending')
  assert.ok(pending)
  await outcome({ ...pending, server: { ...pending.server, inventory } }, createTpmNodeAttestor)
  assert.deepEqual(
    inventory.knocks.map(({ address, description }) => ({ address, description })),
    [{ address: '192.0.2.7', description: 'ASSY Forged firmware 7.2.3.1' }],
  )
})
