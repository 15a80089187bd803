import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  activateAtSeconds,
  prepareAtSeconds,
  propagationSeconds,
  shouldActivate,
  shouldPrepare,
} from './slot.ts'

const hour = 3600
const day = 24 * hour
const lifeOf = (seconds: number) => ({ issuedAtSeconds: 1000, expiresAtSeconds: 1000 + seconds })

const table: readonly (readonly [string, number, number, number, number])[] = [
  ['a day', day, day / 2, day / 6, 60],
  ['sixty days', 60 * day, 30 * day, 7 * day, 60],
  ['a year', 365 * day, 30 * day, 7 * day, 60],
  ['a minute', 60, 30, 10, 5],
]
for (const [name, ttl, prepareLeft, activateLeft, propagation] of table) {
  test(`a successor of an authority of ${name} is prepared and activated as by spire-server`, () => {
    const life = lifeOf(ttl)
    const end = life.expiresAtSeconds
    assert.equal(prepareAtSeconds(life), end - prepareLeft)
    assert.equal(activateAtSeconds(life), end - activateLeft)
    assert.equal(shouldPrepare(life, end - prepareLeft - 1), false)
    assert.equal(shouldPrepare(life, end - prepareLeft), true)
    assert.equal(shouldActivate(life, end - activateLeft - 1), false)
    assert.equal(shouldActivate(life, end - activateLeft), true)
    assert.equal(propagationSeconds(life, 60), propagation)
  })
}
