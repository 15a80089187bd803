import assert from 'node:assert/strict'
import process from 'node:process'
import { test } from 'node:test'
import { newFaultyHsm } from '../support/faulty-hsm.ts'
import { EventLoopWatch, SigningLoad, until } from '../support/signing-load.ts'

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
    await using manager = await hsm.open({
      keyProbeInterval: Temporal.Duration.from({ milliseconds: 1500 }),
    })
    const key = await manager.generateKey('k', type)
    await hsm.misbehave('C_Sign flip 5')
    const wrong = { code: 'unavailable', reason: 'hsm-wrong-signature' }
    await assert.rejects(key.sign(Uint8Array.of(1)), wrong)
    assert.equal(manager.counters.wrongSignatures, 2)
    assert.equal(manager.status().state, 'degraded')
    assert.match(manager.status().detail, /last signatures were wrong/)
    await assert.rejects(key.sign(Uint8Array.of(2)), wrong)
    await assert.rejects(key.sign(Uint8Array.of(3)), wrong)
    assert.equal(manager.status().state, 'down', 'three calls in a row are enough')
    await assert.rejects(key.sign(Uint8Array.of(4)), { code: 'unavailable' })

    await until('a new try', () => manager.counters.recoveries > 0)
    assert.equal(manager.status().state, 'down', 'it signs the challenge wrongly too')
    await hsm.misbehave('')
    const backMs = await until('ok', () => manager.status().state === 'ok')
    assert.ok(backMs <= 2000, `back after ${backMs} ms`)
    await key.sign(Uint8Array.of(5))
  })
}

test('sign() forgets a wrong signature with the next right one', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  for (let i = 0; i < 4; i++) {
    await hsm.misbehave('C_Sign flip 5')
    await assert.rejects(key.sign(Uint8Array.of(1)), { reason: 'hsm-wrong-signature' })
    assert.equal(manager.status().state, 'degraded')
    await hsm.misbehave('')
    await key.sign(Uint8Array.of(1))
    assert.equal(manager.status().state, 'ok')
  }
})

test('a key that signed wrongly is left alone until a challenge shows that it is right again', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  await manager.generateKey('other', 'ec-p256')
  await hsm.misbehave('C_Sign flip 5')
  for (let i = 0; i < 3; i++) {
    await assert.rejects(key.sign(Uint8Array.of(1)), { reason: 'hsm-wrong-signature' })
  }
  assert.equal(manager.status().state, 'degraded', 'the other key is not known to be wrong')
  await hsm.misbehave('')
  const backMs = await until('ok', () => manager.status().state === 'ok')
  assert.ok(backMs <= 2000, `back after ${backMs} ms`)
  await key.sign(Uint8Array.of(1))
  assert.equal(manager.counters.recoveries, 0, 'the token was not opened again for it')
})
