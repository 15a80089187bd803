import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SystemClock } from '#base/clock.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import type { AuthorityEvent } from '#server/authority/authority-context.ts'
import { AuthorityManager } from '#server/authority/authority-manager.ts'
import { openSqliteDatastore } from '#server/datastore/sql/sqlite.ts'
import { openPkcs11KeyManager, type Pkcs11KeyManager } from '#server/plugin/key-manager/pkcs11.ts'
import { TokenPair } from '#server/plugin/key-manager/token-pair.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { authorityOptions, trustDomain } from '../support/authorities.ts'
import { until } from '../support/signing-load.ts'
import { newSoftHsm, type SoftHsm } from '../support/softhsm.ts'

const minutes = (count: number) => Temporal.Duration.from({ minutes: count })
const hours = (count: number) => Temporal.Duration.from({ hours: count })

const openOn = ({ module, tokenLabel, pinFile, environment }: SoftHsm): Promise<Pkcs11KeyManager> =>
  openPkcs11KeyManager({
    ...{ module, tokenLabel, pinFile, environment, trustDomain },
    clock: new SystemClock(),
    monotonicMs: () => performance.now(),
    random: new SystemRandom(),
    log: silentLog,
  })

/** Two tokens that are really there, and a time for authorities that is not. */
class Scene implements AsyncDisposable {
  readonly clock = new FakeClock()
  readonly tokens: readonly [SoftHsm, SoftHsm]
  readonly datastore = openSqliteDatastore({ path: ':memory:', log: silentLog })
  readonly events: string[] = []

  static async open(): Promise<Scene> {
    return new Scene([await newSoftHsm(), await newSoftHsm()])
  }

  private constructor(tokens: readonly [SoftHsm, SoftHsm]) {
    this.tokens = tokens
  }

  /** A server's part of it, from one start to its end. */
  async start() {
    const [first, second] = [await openOn(this.tokens[0]), await openOn(this.tokens[1])]
    const keyManager = new TokenPair(first, second, {
      promoteAfter: minutes(5),
      monotonicMs: () => this.clock.now().epochMilliseconds,
    })
    const { clock, datastore } = this
    const authorities = await AuthorityManager.open(
      authorityOptions({
        ...{ clock, datastore, keyManager },
        onEvent: ({ kind, what }: AuthorityEvent) => void this.events.push(`${kind} ${what}`),
      }),
    )
    /** The token with the key of the authority in that state: 0 or 1; -1 when it is in none. */
    const tokenOf = (kind: 'x509' | 'jwt', state: 'prepared' | 'active'): number => {
      const keyId = authorities.states(kind).find((one) => one.state === state)?.keyId ?? ''
      return [first, second].findIndex((token) => token.key(keyId) !== undefined)
    }
    return {
      ...{ first, second, keyManager, authorities, tokenOf },
      async [Symbol.asyncDispose]() {
        authorities[Symbol.dispose]()
        await keyManager[Symbol.asyncDispose]()
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.datastore[Symbol.asyncDispose]()
    for (const token of this.tokens) await token[Symbol.asyncDispose]()
  }
}

const kinds = ['x509', 'jwt'] as const

const issue = ({ certificateAuthority }: AuthorityManager) =>
  certificateAuthority.issueJwtSvid({
    spiffeId: spiffeId(trustDomain, '/web'),
    audience: ['a'],
    ttlSeconds: 0,
    includeJti: false,
  })

test('issuing goes on from the second token when the first has been away for longer than promote_after', async () => {
  await using scene = await Scene.open()
  const { clock, tokens, events } = scene
  await using server = await scene.start()
  const { authorities, keyManager, tokenOf } = server
  await authorities.round()
  for (const kind of kinds) {
    assert.equal(tokenOf(kind, 'active'), 0)
    assert.equal(tokenOf(kind, 'prepared'), 1, 'the successor is ready, elsewhere')
  }
  await clock.advance(minutes(10))
  await authorities.round()
  assert.ok(!events.includes('x509 promoted'), 'a token that is there keeps its authority')

  await tokens[0].unplug()
  await until('degraded', () => keyManager.status().state === 'degraded')
  await assert.rejects(issue(authorities), { code: 'unavailable', reason: 'key-manager-down' })
  assert.equal(authorities.health().canIssue, false, 'not ready, although a token signs')
  await authorities.round()
  await clock.advance(minutes(4))
  await authorities.round()
  assert.equal(tokenOf('x509', 'active'), 0, 'it may come back')
  await assert.rejects(issue(authorities))

  await clock.advance(minutes(2))
  await authorities.round()
  for (const kind of kinds) {
    assert.ok(events.includes(`${kind} promoted`))
    assert.equal(tokenOf(kind, 'active'), 1)
    assert.equal(tokenOf(kind, 'prepared'), -1, 'there is no other token to prepare on')
  }
  assert.equal(authorities.health().healthy, true)
  await issue(authorities)

  await tokens[0].plug()
  await until('ok', () => keyManager.status().state === 'ok')
  await authorities.round()
  for (const kind of kinds) {
    assert.equal(tokenOf(kind, 'active'), 1, 'who signs now goes on')
    assert.equal(tokenOf(kind, 'prepared'), 0, 'the first token is the second now')
  }
  await issue(authorities)
})

test('a token that is back in time keeps its authority', async () => {
  await using scene = await Scene.open()
  const { clock, tokens, events } = scene
  await using server = await scene.start()
  const { authorities, keyManager, tokenOf } = server
  await authorities.round()
  await tokens[0].unplug()
  await until('degraded', () => keyManager.status().state === 'degraded')
  await authorities.round()
  await clock.advance(minutes(4))
  await authorities.round()
  await tokens[0].plug()
  await until('ok', () => keyManager.status().state === 'ok')
  await authorities.round()
  await clock.advance(minutes(4))
  await authorities.round()
  assert.equal(tokenOf('x509', 'active'), 0)
  assert.ok(!events.includes('x509 promoted'))
  await issue(authorities)
})

test('a server that starts while the first token is away waits as long, and loses no authority', async () => {
  await using scene = await Scene.open()
  const { clock, tokens, events } = scene
  {
    await using server = await scene.start()
    await server.authorities.round()
  }
  await tokens[0].unplug()
  await using server = await scene.start()
  const { authorities, tokenOf } = server
  assert.ok(!events.includes('x509 dropped'), 'what cannot be seen is not known to be gone')
  assert.equal(authorities.health().canIssue, false)
  await clock.advance(minutes(6))
  await authorities.round()
  assert.ok(events.includes('x509 promoted'))
  assert.equal(tokenOf('x509', 'active'), 1)
  await issue(authorities)
})

test('rotation by time goes on with one token, and fresh successors replace those kept for too long', async () => {
  await using scene = await Scene.open()
  const { clock, tokens } = scene
  await using server = await scene.start()
  const { authorities, keyManager, tokenOf } = server
  await authorities.round()
  const authority = (state: 'prepared' | 'active') =>
    authorities.states('x509').find((one) => one.state === state)?.authorityId
  const kept = authority('prepared')
  await clock.advance(hours(12).add(minutes(1)))
  await authorities.round()
  assert.notEqual(
    authority('prepared'),
    kept,
    'one that has lived for half of its life is not used',
  )
  assert.equal(tokenOf('x509', 'prepared'), 1)

  await tokens[1].unplug()
  await until('degraded', () => keyManager.status().state === 'degraded')
  const before = authority('active')
  await clock.advance(hours(8))
  await authorities.round()
  await clock.advance(minutes(2))
  await authorities.round()
  assert.notEqual(authority('active'), before)
  assert.equal(tokenOf('x509', 'active'), 0, 'on the token that is there')
  await issue(authorities)
})

test('what both tokens have sealed either opens; what one has, while that one is there', async () => {
  await using scene = await Scene.open()
  const { tokens } = scene
  await using server = await scene.start()
  const { keyManager, first, second } = server
  const { sealer } = keyManager
  assert.ok(sealer)
  const secret = Uint8Array.of(1, 2, 3)
  const byBoth = await sealer.seal('k', secret)
  assert.deepEqual(await sealer.unseal('k', byBoth), secret)
  await tokens[0].unplug()
  await until('down', () => first.status().state === 'down')
  assert.deepEqual(await sealer.unseal('k', byBoth), secret)
  const bySecond = await sealer.seal('k', secret)
  assert.deepEqual(await sealer.unseal('k', bySecond), secret)
  await tokens[0].plug()
  await until('ok', () => first.status().state === 'ok')
  await tokens[1].unplug()
  await until('down', () => second.status().state === 'down')
  assert.deepEqual(await sealer.unseal('k', byBoth), secret)
  await assert.rejects(sealer.unseal('k', bySecond), { code: 'unavailable' }, 'it may come back')
  // A server that has one token alone again opens its part.
  assert.deepEqual(await first.sealer?.unseal('k', byBoth), secret)
  await tokens[1].plug()
  await until('ok', () => second.status().state === 'ok')
  assert.deepEqual(await sealer.unseal('k', bySecond), secret)
  for (const sealed of [byBoth, bySecond]) {
    await assert.rejects(sealer.unseal('other', sealed), { code: 'failed-precondition' })
  }
})
