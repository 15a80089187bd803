import assert from 'node:assert/strict'
import process from 'node:process'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { newFaultyHsm } from '../support/faulty-hsm.ts'
import { EventLoopWatch, SigningLoad } from '../support/signing-load.ts'

// The figure to hold is 100,000 signatures, one in a hundred corrupted; ASSAY_FAULT_SIGNS=100000 runs it.
const signs = Number(process.env['ASSAY_FAULT_SIGNS'] ?? 2000)

test('sign() releases no wrong signature of an HSM that corrupts one in a hundred', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  await hsm.misbehave('C_Sign flip 77 100')
  using eventLoop = new EventLoopWatch()
  await using load = new SigningLoad(key, { limit: signs })
  const { signed, wrong, failed } = await load.ended()
  assert.equal(wrong, 0)
  assert.equal(signed + failed, signs)
  // Each hundredth call is hit, so a second wrong one in a row is a matter of chance among callers.
  assert.ok(failed <= signs / 1000, `${failed} failed`)
  assert.ok(manager.counters.wrongSignatures >= Math.floor(signs / 100), 'each is counted')
  assert.ok(eventLoop.longestMs < 100, `event loop stood still for ${eventLoop.longestMs} ms`)
})

for (const type of ['ec-p256', 'rsa-2048'] as const) {
  test(`sign() releases nothing of an HSM that corrupts every ${type} signature, and recovers`, async () => {
    await using hsm = await newFaultyHsm()
    await using manager = await hsm.open()
    const key = await manager.generateKey('k', type)
    await hsm.misbehave('C_Sign flip 5')
    for (let i = 0; i < 10; i++) {
      await assert.rejects(key.sign(Uint8Array.of(i)), (error) => {
        assert.ok(error instanceof AssayError)
        assert.equal(error.code, 'unavailable')
        return error.reason === 'hsm-wrong-signature'
      })
    }
    assert.equal(manager.counters.wrongSignatures, 20)
    assert.equal(manager.status().state, 'degraded')
    assert.match(manager.status().detail, /signatures were wrong/)
    await hsm.misbehave('')
    await key.sign(Uint8Array.of(1))
    assert.equal(manager.status().state, 'ok')
  })
}
