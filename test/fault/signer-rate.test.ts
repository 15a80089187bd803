import assert from 'node:assert/strict'
import { performance } from 'node:perf_hooks'
import { test } from 'node:test'
import { newFaultyHsm } from '../support/faulty-hsm.ts'
import { SigningLoad } from '../support/signing-load.ts'

const delayMs = 25
/** A machine that has nothing else to do gives 600 of 640 a second and more; sessions that wait for each other a quarter. */
const enough = 0.75

for (const sessions of [4, 16]) {
  test(`an HSM that takes ${delayMs} ms a signature gives its full rate with ${sessions} sessions`, async (t) => {
    await using hsm = await newFaultyHsm()
    await using manager = await hsm.open({ sessions })
    const key = await manager.generateKey('k', 'ec-p256')
    await hsm.misbehave(`C_Sign delay ${delayMs}`)
    const full = (sessions * 1000) / delayMs
    let best = 0
    for (let round = 0; round < 6 && best < enough * full; round++) {
      const startedAt = performance.now()
      await using load = new SigningLoad(key, { inFlight: 2 * sessions, limit: full / 2 })
      const { signed } = await load.ended()
      assert.equal(signed, full / 2)
      best = Math.max(best, (1000 * signed) / (performance.now() - startedAt))
    }
    t.diagnostic(`${best.toFixed()} of ${full} signatures a second`)
    assert.ok(best >= enough * full, `${best} signatures a second`)
  })
}
