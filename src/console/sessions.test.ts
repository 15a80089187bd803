import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SystemRandom } from '#base/random.ts'
import { Sessions } from './sessions.ts'

test('Sessions give a key for a link once, and only for the newest link', () => {
  const sessions = new Sessions(new SystemRandom())
  assert.equal(sessions.redeem(''), undefined, 'there is no link yet')
  const old = sessions.newLink()
  const link = sessions.newLink()
  assert.notEqual(old, link)
  assert.equal(sessions.redeem(old), undefined)
  const key = sessions.redeem(link)
  assert.ok(key !== undefined && key !== link)
  assert.ok(sessions.has(key))
  assert.equal(sessions.redeem(link), undefined, 'it was used')
  assert.equal(sessions.redeem(''), undefined)
  for (const wrong of ['', link, `${key}x`, key.slice(1)]) assert.ok(!sessions.has(wrong))
})

test('Sessions know the 32 newest browsers', () => {
  const sessions = new Sessions(new SystemRandom())
  const keys = Array.from({ length: 33 }, () => sessions.redeem(sessions.newLink()) ?? '')
  assert.deepEqual(
    keys.map((key) => sessions.has(key)),
    [false, ...Array.from({ length: 32 }, () => true)],
  )
})
