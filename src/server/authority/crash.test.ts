import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { authorityOptions, newMemoryKeyManager } from '../../../test/support/authorities.ts'
import { checkAuthorities, liveThrough, withPoints } from '../../../test/support/authority-life.ts'
import { AuthorityManager } from './authority-manager.ts'

const newOptions = () => ({ ...authorityOptions(), clock: new FakeClock() })

class Death extends Error {}

/** Options that let `calls` points pass, and then nothing that is durable can be reached any more. */
function mortal(options: ReturnType<typeof newOptions>, calls: number) {
  let reached = 'nothing'
  let count = 0
  const mortalOptions = withPoints(options, (point) => {
    if (count === calls) throw new Death()
    count++
    reached = point
  })
  return { options: mortalOptions, reached: () => reached }
}

async function liveUntil(options: ReturnType<typeof newOptions>, last: number): Promise<string> {
  const life = mortal(options, last)
  // A round keeps its failures to itself, so what shows at last is that nothing can be issued or found.
  await liveThrough(life.options, () => {}).catch(() => {})
  return life.reached()
}

async function pointsOfALife(): Promise<string[]> {
  const points: string[] = []
  const options = newOptions()
  await liveThrough(
    withPoints(options, (point) => points.push(point)),
    () => {},
  )
  return points
}

test('a server that dies at any call to its datastore or key manager carries on, keys and all (R1)', async () => {
  const points = await pointsOfALife()
  assert.ok(points.length > 80, `${points.length} points`)
  for (let last = 0; last < points.length; last++) {
    const options = newOptions()
    const reached = await liveUntil(options, last)
    const manager = await AuthorityManager.open(options)
    try {
      await checkAuthorities(manager, options)
    } catch (error) {
      throw new Error(`after a death at ${reached}`, { cause: error })
    }
    manager[Symbol.dispose]()
  }
})

test('a server that dies at any call and has lost its keys makes new ones at once', async () => {
  const points = await pointsOfALife()
  for (let last = 0; last < points.length; last += 3) {
    const options = newOptions()
    const reached = await liveUntil(options, last)
    const keyManager = newMemoryKeyManager()
    const manager = await AuthorityManager.open({ ...options, keyManager })
    assert.deepEqual(
      manager.health(),
      { healthy: true, canIssue: true, detail: '' },
      `after a death at ${reached}`,
    )
    assert.deepEqual(manager.orphanKeys(), [])
    assert.equal(keyManager.keys().length, 2)
  }
})

test('fifty deaths while a key is made leave one key of each kind', async () => {
  const options = newOptions()
  for (let i = 0; i < 50; i++) {
    await AuthorityManager.open(mortal(options, 4 + (i % 3)).options).catch(() => {})
  }
  const manager = await AuthorityManager.open(options)
  await checkAuthorities(manager, options)
  assert.equal(options.keyManager.keys().length, 2)
})
