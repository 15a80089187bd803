import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nextTurn } from '#base/event-loop.ts'
import {
  day,
  hour,
  newMemoryKeyManager,
  openAuthorities,
  seconds,
} from '../../../test/support/authorities.ts'
import { issueOne } from '../../../test/support/authority-life.ts'
import { agentId } from '../../../test/support/records.ts'
import type { KeyManager, SigningKey } from '../plugin/key-manager/key-manager.ts'
import { AuthorityManager } from './authority-manager.ts'
import type { RotationProgress, RotationWishes } from './guided-rotation.ts'
import { type Dependents, type Holders, nobody, type Survey } from './holders.ts'
import type { AuthorityKindName } from './journal.ts'
import { maxOldAuthorities } from './rotator.ts'

const patient: RotationWishes = {
  retire: false,
  force: false,
  afterSeconds: undefined,
  predecessorId: '',
}
const retiring: RotationWishes = { ...patient, retire: true }

/** Nodes of which a test says what they have. */
class TestHolders implements Holders {
  survey_: Survey = nobody.survey(0n)
  dependents_: Dependents = nobody.dependents({ authorityId: '', sinceSeconds: 0 })
  readonly asked: bigint[] = []

  survey(sequenceNumber: bigint): Survey {
    this.asked.push(sequenceNumber)
    return this.survey_
  }
  dependents(): Dependents {
    return this.dependents_
  }
  onChange(): Disposable {
    return { [Symbol.dispose]() {} }
  }
}

async function openWithNodes() {
  const holders = new TestHolders()
  return { ...(await openAuthorities({ holders, propagationDelaySeconds: 0 })), holders }
}

type Authorities = Awaited<ReturnType<typeof openWithNodes>>

/** A rotation whose clock a test moves on by hand. */
function rotation(
  { manager, clock }: Pick<Authorities, 'manager' | 'clock'>,
  kind: AuthorityKindName,
  wishes: RotationWishes,
) {
  const stop = new AbortController()
  const steps: RotationProgress[] = []
  const finished = (async () => {
    for await (const progress of manager.rotate(kind, wishes, stop.signal)) steps.push(progress)
  })()
  let isOver = false
  void finished
    .catch(() => {})
    .finally(() => {
      isOver = true
    })
  /** It works in real time, and waits by the clock. */
  const atRest = async (): Promise<void> => {
    while (!isOver && clock.sleeping === 0) await nextTurn()
  }
  return {
    steps,
    names: () => steps.map(({ step }) => step),
    last: () => {
      const last = steps.at(-1)
      assert.ok(last)
      return last
    },
    finished,
    /** Lets `count` seconds pass, in which it looks at least once. */
    async pass(count: number): Promise<void> {
      for (let tenths = 0; tenths < count * 10; tenths++) {
        await atRest()
        await clock.advance(tenth)
      }
      await atRest()
    },
    async abort(): Promise<void> {
      stop.abort(new Error('the operator has gone'))
      await assert.rejects(finished, /has gone/)
    },
  }
}

const tenth = Temporal.Duration.from({ milliseconds: 100 })

const byState = (manager: AuthorityManager, kind: AuthorityKindName, state: string) =>
  manager.states(kind).find((one) => one.state === state)

const nodes = [agentId('a'), agentId('b')] as const

for (const kind of ['x509', 'jwt'] as const) {
  test(`rotate() of ${kind} activates a successor that every live node has`, async () => {
    const authorities = await openWithNodes()
    const { manager, holders, bundle } = authorities
    const first = byState(manager, kind, 'active')
    holders.survey_ = { live: 2, lacking: nodes, away: 1 }
    const running = rotation(authorities, kind, patient)
    await running.pass(5)
    assert.deepEqual(running.names(), ['begun', 'prepared', 'propagating'])
    const waits = running.last()
    assert.deepEqual(waits.waitingFor, nodes)
    assert.deepEqual([waits.nodes, waits.nodesDone, waits.away], [2, 0, 1])
    assert.equal(holders.asked.at(-1), (await bundle()).sequenceNumber, 'of the bundle it is in')
    assert.equal(byState(manager, kind, 'active')?.authorityId, first?.authorityId)

    holders.survey_ = { live: 2, lacking: [nodes[1]], away: 1 }
    await running.pass(1)
    assert.equal(running.last().nodesDone, 1)
    holders.survey_ = { live: 2, lacking: [], away: 1 }
    await running.pass(0.5)
    assert.equal(running.last().step, 'propagating', 'what nodes have just got settles first')
    await running.pass(1.5)
    await running.finished
    assert.deepEqual(running.names().slice(-2), ['activated', 'done'])
    const active = byState(manager, kind, 'active')
    assert.equal(running.last().successorId, active?.authorityId)
    assert.equal(running.last().predecessorId, first?.authorityId)
    assert.notEqual(active?.authorityId, first?.authorityId)
    assert.equal(byState(manager, kind, 'old')?.tainted, false)
    assert.deepEqual(manager.rotations(), [])
  })
}

test('rotate() begins to settle anew when a node lacks the bundle after all', async () => {
  const authorities = await openWithNodes()
  const { holders } = authorities
  holders.survey_ = { live: 2, lacking: [], away: 0 }
  const running = rotation(authorities, 'x509', patient)
  await running.pass(0.7)
  holders.survey_ = { live: 3, lacking: [nodes[0]], away: 0 }
  await running.pass(2)
  assert.equal(running.last().step, 'propagating')
  holders.survey_ = { live: 3, lacking: [], away: 0 }
  await running.pass(0.8)
  assert.equal(running.last().step, 'propagating')
  await running.pass(1)
  await running.finished
})

test('rotate() with force waits for nobody', async () => {
  const authorities = await openWithNodes()
  authorities.holders.survey_ = { live: 2, lacking: nodes, away: 0 }
  authorities.holders.dependents_ = { ...authorities.holders.dependents_, nodes, svids: 9 }
  const running = rotation(authorities, 'x509', { ...retiring, force: true })
  await running.finished
  assert.deepEqual(running.names(), [
    'begun',
    'prepared',
    'activated',
    'tainted',
    'revoked',
    'done',
  ])
})

test('rotate() with force and without retire does not end early what somebody else has left to end', async () => {
  const authorities = await openWithNodes()
  const { manager, holders } = authorities
  await issueOne(manager)
  const none = holders.dependents_
  holders.dependents_ = { ...none, nodes, svids: 9 }
  const left = rotation(authorities, 'x509', retiring)
  await left.pass(3)
  assert.equal(left.last().step, 'replacing')
  await left.abort()
  const forced = rotation(authorities, 'x509', { ...patient, force: true })
  await forced.pass(3)
  assert.deepEqual(forced.names(), ['replacing'])
  holders.dependents_ = none
  await forced.pass(2)
  await forced.finished
})

test('an authority whose key is in a token that is away is not activated', async () => {
  const memory = newMemoryKeyManager()
  let isUp = true
  const keyManager = Object.assign(memory, {
    place: (id: string) =>
      memory.key(id) && { where: 'the second token', isUp, isGivenUp: false, hasOther: false },
  })
  const authorities = await openAuthorities({ keyManager })
  const { manager } = authorities
  const first = byState(manager, 'x509', 'active')
  const { authorityId } = await manager.prepare('x509')
  isUp = false
  await assert.rejects(manager.activate('x509', authorityId), {
    code: 'unavailable',
    reason: 'key-manager-down',
    message: /in the second token; bring that back, or prepare another one/,
  })
  assert.equal(byState(manager, 'x509', 'active')?.authorityId, first?.authorityId)
  isUp = true
  await manager.activate('x509', authorityId)
})

test('no more authorities are made by hand than the journal has room for', async () => {
  const authorities = await openAuthorities()
  const { manager } = authorities
  for (let made = 0; made <= maxOldAuthorities; made++) await manager.prepare('x509')
  await assert.rejects(manager.prepare('x509'), {
    code: 'failed-precondition',
    reason: 'too-many-authorities',
  })
  manager[Symbol.dispose]()
  const again = await AuthorityManager.open(authorities)
  assert.equal(again.states('x509').length, maxOldAuthorities + 2)
})

test('rotate() with a time activates then, neither earlier nor later', async () => {
  const authorities = await openWithNodes()
  const { holders, clock, nowSeconds } = authorities
  const start = nowSeconds()
  const running = rotation(authorities, 'x509', { ...patient, afterSeconds: 1800 })
  await running.pass(1)
  assert.equal(running.last().untilSeconds, start + 1800)
  holders.survey_ = { live: 2, lacking: nodes, away: 0 }
  await clock.advance(seconds(1797))
  assert.equal(running.last().step, 'propagating')
  await running.pass(5)
  await running.finished
  assert.ok(nowSeconds() - start < 1805)
})

test('rotate() with retire ends the predecessor when nothing of it is in use', async () => {
  const authorities = await openWithNodes()
  const { manager, holders, keyManager, bundle } = authorities
  const first = byState(manager, 'x509', 'active')
  assert.ok(first)
  await issueOne(manager)
  const none = holders.dependents_
  holders.dependents_ = { ...none, nodes, svids: 3, server: true }
  const running = rotation(authorities, 'x509', retiring)
  await running.pass(3)
  assert.deepEqual(running.names().slice(-3), ['activated', 'tainted', 'replacing'])
  assert.deepEqual(running.last().waitingFor, nodes)
  assert.equal(running.last().svids, 3)
  assert.match(running.last().detail, /the server still shows/)
  assert.equal(byState(manager, 'x509', 'old')?.tainted, true)
  assert.ok(keyManager.key(first.keyId))

  holders.dependents_ = { ...none, nodes: [nodes[0]], svids: 1 }
  await running.pass(2)
  assert.deepEqual([running.last().nodes, running.last().nodesDone], [2, 1])
  holders.dependents_ = { ...none, unknown: [nodes[0]] }
  await running.pass(2)
  assert.match(running.last().detail, /1 node has not said what it holds/)
  holders.dependents_ = none
  await running.pass(2)
  await running.finished
  assert.deepEqual(running.names().slice(-2), ['revoked', 'done'])
  assert.equal(keyManager.key(first.keyId), undefined, 'its key is destroyed')
  assert.equal((await bundle()).x509Authorities.length, 1)
  assert.equal(manager.states('x509').length, 1)
})

test('rotate() with retire waits for what the predecessor was asked to sign and has not signed yet', async () => {
  const stalled = Promise.withResolvers<void>()
  const reached = Promise.withResolvers<void>()
  let isStalled = false
  const keys = newMemoryKeyManager()
  const slow = (key: SigningKey | undefined): SigningKey | undefined =>
    key && {
      ...key,
      async sign(message) {
        if (isStalled) {
          isStalled = false
          reached.resolve()
          await stalled.promise
        }
        return await key.sign(message)
      },
    }
  const keyManager: KeyManager = {
    ...keys,
    key: (id) => slow(keys.key(id)),
    generateKey: async (id, type) => slow(await keys.generateKey(id, type)) ?? assert.fail(),
  }
  const holders = new TestHolders()
  const authorities = await openAuthorities({ holders, keyManager, propagationDelaySeconds: 0 })
  const first = byState(authorities.manager, 'x509', 'active')
  isStalled = true
  const signing = issueOne(authorities.manager)
  await reached.promise
  const running = rotation(authorities, 'x509', retiring)
  await running.pass(5)
  assert.equal(running.last().step, 'replacing')
  assert.match(running.last().detail, /still signs what it was asked for/)
  stalled.resolve()
  assert.equal(await signing, first?.authorityId)
  await running.pass(3)
  await running.finished
  assert.deepEqual(running.names().slice(-2), ['revoked', 'done'])
})

test('rotate() with retire waits for the last JWT-SVID of the predecessor to expire', async () => {
  const authorities = await openWithNodes()
  const { manager, clock, nowSeconds } = authorities
  await issueOne(manager)
  const expiresAt = nowSeconds() + 60
  const running = rotation(authorities, 'jwt', retiring)
  await running.pass(3)
  assert.equal(running.last().step, 'replacing')
  assert.equal(running.last().untilSeconds, expiresAt)
  await clock.advance(seconds(expiresAt - nowSeconds() - 2))
  assert.equal(running.last().step, 'replacing')
  await running.pass(5)
  await running.finished
})

test('rotate() with retire waits for an SVID that was minted by hand, also after a restart', async () => {
  const before = await openWithNodes()
  const { clock, nowSeconds } = before
  await issueOne(before.manager)
  const { authorityId = '' } = byState(before.manager, 'x509', 'active') ?? {}
  const until = nowSeconds() + 30
  await before.manager.noteMinted(authorityId, until)
  await before.manager.noteMinted(authorityId, until - 10)
  await before.manager.noteMinted('of somebody else', until + 10)
  before.manager[Symbol.dispose]()
  const manager = await AuthorityManager.open(before)
  const running = rotation({ manager, clock }, 'x509', retiring)
  await running.pass(3)
  assert.equal(running.last().step, 'replacing')
  assert.match(running.last().detail, /minted by hand/)
  await clock.advance(seconds(until - nowSeconds() - 1))
  assert.equal(running.last().step, 'replacing')
  await running.pass(3)
  await running.finished
})

test('rotate() does not wait for nodes when everything the predecessor signed has expired', async () => {
  const authorities = await openWithNodes()
  const { manager, holders, clock } = authorities
  await issueOne(manager)
  holders.dependents_ = { ...holders.dependents_, unknown: nodes }
  const running = rotation(authorities, 'x509', retiring)
  await running.pass(3)
  assert.equal(running.last().step, 'replacing')
  await clock.advance(seconds(60))
  await running.pass(3)
  await running.finished
})

test('rotate() that was left goes on where it was, with what was wished for first', async () => {
  const authorities = await openWithNodes()
  const { manager, holders, keyManager } = authorities
  holders.survey_ = { live: 2, lacking: nodes, away: 0 }
  const left = rotation(authorities, 'x509', retiring)
  await left.pass(2)
  await left.abort()
  const prepared = byState(manager, 'x509', 'prepared')
  assert.ok(prepared)
  assert.equal(manager.rotations().length, 1)

  const again = rotation(authorities, 'x509', patient)
  await again.pass(1)
  assert.deepEqual(again.names(), ['propagating'])
  assert.equal(again.last().successorId, prepared.authorityId, 'the same successor')
  holders.survey_ = { live: 2, lacking: [], away: 0 }
  await again.pass(4)
  await again.finished
  assert.deepEqual(again.names().slice(-5), [
    'activated',
    'tainted',
    'replacing',
    'revoked',
    'done',
  ])
  assert.equal(keyManager.keys().length, 2)
})

test('rotate() goes on after a restart, and after the time of day has activated the successor', async () => {
  const before = await openWithNodes()
  before.holders.survey_ = { live: 2, lacking: nodes, away: 0 }
  const left = rotation(before, 'x509', retiring)
  await left.pass(2)
  await left.abort()
  const first = byState(before.manager, 'x509', 'active')
  before.manager[Symbol.dispose]()

  const manager = await AuthorityManager.open(before)
  assert.deepEqual(
    manager
      .rotations()
      .map(({ kind, rotation: { predecessorId, retire } }) => [kind, predecessorId, retire]),
    [['x509', first?.authorityId, true]],
  )
  before.holders.survey_ = { live: 2, lacking: [], away: 0 }
  await before.clock.advance(seconds((5 / 6) * day))
  await manager.round()
  assert.equal(byState(manager, 'x509', 'old')?.authorityId, first?.authorityId)
  const again = rotation({ manager, clock: before.clock }, 'x509', retiring)
  await again.pass(5)
  await again.finished
  assert.equal(again.names()[0], 'tainted')
  assert.equal(
    manager.states('x509').some((s) => s.authorityId === first?.authorityId),
    false,
  )
})

test('two operators who rotate at the same time make one rotation', async () => {
  const authorities = await openWithNodes()
  const { keyManager } = authorities
  const one = rotation(authorities, 'x509', patient)
  const two = rotation(authorities, 'x509', patient)
  await one.pass(5)
  await Promise.all([one.finished, two.finished])
  assert.equal(one.last().successorId, two.last().successorId)
  assert.equal(keyManager.keys().length, 3)
})

test('rotate() waits as long as the configuration says, also when every node has the successor', async () => {
  const authorities = await openAuthorities({ propagationDelaySeconds: 30 })
  const start = authorities.nowSeconds()
  const running = rotation(authorities, 'x509', patient)
  await running.pass(28)
  assert.equal(running.last().step, 'propagating')
  assert.equal(running.last().untilSeconds, start + 30)
  await running.pass(6)
  await running.finished
  const forced = rotation(authorities, 'x509', { ...patient, force: true })
  await forced.finished
})

test('rotate() of one authority goes on with no other rotation', async () => {
  const authorities = await openWithNodes()
  const { manager, keyManager } = authorities
  const first = byState(manager, 'x509', 'active')?.authorityId ?? ''
  const running = rotation(authorities, 'x509', patient)
  await running.pass(5)
  await running.finished
  const again = rotation(authorities, 'x509', { ...patient, predecessorId: first })
  await again.finished
  assert.deepEqual(again.names(), ['done'])
  assert.equal(again.last().successorId, running.last().successorId)
  assert.equal(keyManager.keys().length, 3)
})

test('rotate() makes a successor of the configured key type in place of one that is prepared', async () => {
  const before = await openAuthorities({ propagationDelaySeconds: 0 })
  await before.manager.prepare('x509')
  before.manager[Symbol.dispose]()
  const manager = await AuthorityManager.open({ ...before, caKeyType: 'ec-p384' })
  const running = rotation({ manager, clock: before.clock }, 'x509', patient)
  await running.pass(5)
  await running.finished
  assert.equal(byState(manager, 'x509', 'active')?.keyType, 'ec-p384')
  assert.equal(byState(manager, 'jwt', 'active')?.keyType, 'ec-p256')
  const keys = before.keyManager.keys().filter(({ id }) => id.startsWith('x509-ca/'))
  assert.equal(keys.length, 2, 'the one that was never used is destroyed')
})

test('rotate() fails while nothing is active or the key manager is down', async () => {
  const keyManager = newMemoryKeyManager()
  const authorities = await openAuthorities({ keyManager })
  Object.assign(keyManager, { status: () => ({ state: 'down', detail: 'gone', where: 'hsm' }) })
  const running = rotation(authorities, 'x509', patient)
  await assert.rejects(running.finished, { code: 'unavailable', reason: 'key-manager-down' })
})

test('a successor is not activated by time before every live node has it, until a twelfth is left', async () => {
  const authorities = await openWithNodes()
  const { manager, holders, clock, nowSeconds } = authorities
  const start = nowSeconds()
  const at = async (ageSeconds: number): Promise<void> => {
    await clock.advance(seconds(start + ageSeconds - nowSeconds()))
    await manager.round()
  }
  await at(day / 2)
  const first = byState(manager, 'x509', 'active')?.authorityId
  holders.survey_ = { live: 2, lacking: [nodes[0]], away: 0 }
  await at(20 * hour)
  assert.equal(byState(manager, 'x509', 'active')?.authorityId, first)
  await at(22 * hour - 1)
  assert.equal(byState(manager, 'x509', 'active')?.authorityId, first)
  await at(22 * hour)
  assert.notEqual(byState(manager, 'x509', 'active')?.authorityId, first)
})

test('what an authority has signed is remembered over a restart', async () => {
  const before = await openAuthorities()
  await issueOne(before.manager)
  const until = before.nowSeconds() + 60
  assert.equal(byState(before.manager, 'jwt', 'active')?.signedUntilSeconds, until)
  await before.manager.prepare('jwt')
  await before.manager.activate(
    'jwt',
    byState(before.manager, 'jwt', 'prepared')?.authorityId ?? '',
  )
  before.manager[Symbol.dispose]()
  const manager = await AuthorityManager.open(before)
  assert.equal(byState(manager, 'jwt', 'old')?.signedUntilSeconds, until)
})
