import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { SystemRandom } from '#base/random.ts'
import { ReplacementSpread } from './replacement-spread.ts'

const clock = new FakeClock()
const nowMs = clock.now().epochMilliseconds
const quarter = { bytes: (n: number) => new Uint8Array(n).fill(0).with(0, 0x40) }

test('ReplacementSpread.momentMs() is at once unless the server states a spread', () => {
  const spread = new ReplacementSpread({ clock, random: new SystemRandom() })
  assert.equal(spread.momentMs('a'), nowMs)
})

test('ReplacementSpread.momentMs() is drawn once an authority, and forgotten when it is no longer tainted', () => {
  const spread = new ReplacementSpread({ clock, random: quarter })
  spread.seconds = 100
  assert.equal(spread.momentMs('a'), nowMs + 25_000)
  spread.seconds = 400
  assert.equal(spread.momentMs('a'), nowMs + 25_000)
  assert.equal(spread.momentMs('b'), nowMs + 100_000)
  spread.keepOnly((id) => id === 'b')
  spread.seconds = 0
  assert.equal(spread.momentMs('a'), nowMs)
  assert.equal(spread.momentMs('b'), nowMs + 100_000)
})

test('ReplacementSpread spreads the agents of a trust domain over the whole time (F41)', () => {
  const moments = Array.from({ length: 10_000 }, () => {
    const spread = new ReplacementSpread({ clock, random: new SystemRandom() })
    spread.seconds = 1000
    return spread.momentMs('a') - nowMs
  })
  const perTenth = Array.from(
    { length: 10 },
    (_, tenth) => moments.filter((at) => Math.trunc(at / 100_000) === tenth).length,
  )
  // A thousand each, within seven standard deviations.
  for (const agents of perTenth) assert.ok(agents > 790 && agents < 1210, perTenth.join())
})
