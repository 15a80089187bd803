import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { SystemRandom } from '#base/random.ts'
import {
  Approvals,
  approvalSeconds,
  maxWishes,
  maxWishesPerPerson,
  type Person,
  type Wish,
} from './approvals.ts'

const person = (name: string): Person => ({ key: name, name })
const alice = person('alice')
const bob = person('bob')
const carol = person('carol')
const wish = (given: Partial<Wish> = {}): Wish => ({
  method: '/x.Y/Z',
  hash: 'a',
  what: 'do it',
  request: '{}',
  requester: alice,
  needed: 1,
  isPrivileged: false,
  isResumable: false,
  ...given,
})

function begin() {
  const clock = new FakeClock()
  const approvals = new Approvals({ clock, random: new SystemRandom() })
  /** Asks, and gives the id under which it is remembered. */
  const ask = (given: Partial<Wish> = {}): string => {
    assert.throws(() => approvals.use(wish(given)), {
      code: 'failed-precondition',
      reason: 'approval-required',
    })
    return approvals.list().at(-1)?.id ?? ''
  }
  return { clock, approvals, ask }
}

test('Approvals.use() remembers a wish once, and names the command by which another agrees', () => {
  const { approvals, ask } = begin()
  const id = ask()
  assert.match(id, /^[0-9a-f]{8}$/)
  assert.throws(() => approvals.use(wish()), {
    message: `cannot do it yet: one more administrator must agree to request ${id}, with 'assay approval approve ${id}'; then run this again`,
  })
  assert.equal(approvals.list().length, 1)
  assert.equal(approvals.pending, 1)
})

test('Approvals.use() lets an approved wish through once', () => {
  const { approvals, ask } = begin()
  const id = ask()
  assert.equal(approvals.approve(id, bob).state, 'approved')
  const { approval } = approvals.use(wish())
  assert.deepEqual(approval.approvers, [bob])
  assert.notEqual(ask(), id)
})

test('Approvals.use() takes an approval for nobody else and nothing else', () => {
  const { approvals, ask } = begin()
  approvals.approve(ask(), bob)
  ask({ requester: carol })
  ask({ hash: 'b' })
  ask({ requester: bob })
  approvals.use(wish())
})

test('Approvals.approve() refuses whoever asked, and counts one person once', () => {
  const { approvals, ask } = begin()
  const id = ask({ needed: 2 })
  assert.throws(() => approvals.approve(id, alice), {
    code: 'permission-denied',
    reason: 'approval-own',
  })
  assert.equal(approvals.approve(id, bob).state, 'pending')
  assert.equal(approvals.approve(id, bob).state, 'pending')
  assert.throws(() => approvals.use(wish({ needed: 2 })), { reason: 'approval-required' })
  assert.equal(approvals.approve(id, carol).state, 'approved')
  approvals.use(wish({ needed: 2 }))
  assert.throws(() => approvals.approve('none', bob), { reason: 'approval-not-found' })
})

test('Approvals.deny() is told once to who asked, also when it was approved before', () => {
  const { approvals, ask } = begin()
  const id = ask()
  approvals.approve(id, bob)
  assert.equal(approvals.deny(id, carol).state, 'denied')
  assert.throws(() => approvals.approve(id, bob), { reason: 'approval-denied' })
  assert.throws(() => approvals.use(wish()), {
    reason: 'approval-denied',
    message: /carol has denied/,
  })
  assert.notEqual(ask(), id)
})

test('Approvals.deny() takes back what one asked for oneself', () => {
  const { approvals, ask } = begin()
  const id = ask()
  approvals.deny(id, alice)
  assert.deepEqual(approvals.list(), [])
  assert.notEqual(ask(), id)
})

test('Approvals forget a wish after a day, and an approval a day after it was given', async () => {
  const { clock, approvals, ask } = begin()
  const id = ask()
  await clock.advance(Temporal.Duration.from({ seconds: approvalSeconds - 1 }))
  approvals.approve(id, bob)
  await clock.advance(Temporal.Duration.from({ seconds: approvalSeconds - 1 }))
  assert.equal(approvals.get(id)?.state, 'approved')
  await clock.advance(Temporal.Duration.from({ seconds: 1 }))
  assert.throws(() => approvals.approve(id, bob), { reason: 'approval-not-found' })
  ask()
})

test('Approvals.use() lets a resumable call begin again until it has ended well, one at a time', () => {
  const { approvals, ask } = begin()
  const given = { isResumable: true }
  const id = ask(given)
  approvals.approve(id, bob)
  const first = approvals.use(wish(given))
  assert.throws(() => approvals.use(wish(given)), {
    code: 'unavailable',
    reason: 'approval-in-use',
  })
  first.end(false)
  const second = approvals.use(wish(given))
  second.end(true)
  assert.notEqual(ask(given), id)
})

test('Approvals.deny() refuses while the call is under way, and keeps it from being begun again', () => {
  const { approvals, ask } = begin()
  const given = { isResumable: true }
  const id = ask(given)
  approvals.approve(id, bob)
  const use = approvals.use(wish(given))
  for (const person of [alice, carol]) {
    assert.throws(() => approvals.deny(id, person), {
      code: 'failed-precondition',
      reason: 'approval-in-use',
    })
  }
  use.end(false)
  assert.equal(approvals.deny(id, carol).state, 'denied')
  assert.throws(() => approvals.use(wish(given)), { reason: 'approval-denied' })
})

test('Approvals remember so many wishes and no more', () => {
  const { approvals, ask } = begin()
  for (let i = 0; i < maxWishesPerPerson; i++) ask({ hash: String(i) })
  const full = { code: 'resource-exhausted', reason: 'approvals-full' }
  assert.throws(() => approvals.use(wish({ hash: 'one more' })), full)
  assert.throws(() => approvals.use(wish({ hash: '0' })), { reason: 'approval-required' })
  for (let i = maxWishesPerPerson; i < maxWishes; i++) {
    ask({ requester: person(`p${Math.floor(i / maxWishesPerPerson)}`), hash: String(i) })
  }
  assert.throws(() => approvals.use(wish({ requester: bob })), full)
  approvals.deny(approvals.list()[0]?.id ?? '', alice)
  ask({ requester: bob })
})

test('Approvals.use() asks anew for what needs more than it did when it was agreed to', () => {
  for (const more of [{ isPrivileged: true }, { needed: 2 }]) {
    const { approvals, ask } = begin()
    const id = ask()
    approvals.approve(id, bob)
    assert.notEqual(ask(more), id)
    assert.equal(approvals.get(id), undefined)
    assert.throws(() => approvals.use(wish(more)), { reason: 'approval-required' })
  }
})
