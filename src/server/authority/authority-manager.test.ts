import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { FakeClock } from '#base/fake-clock.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import {
  authorityOptions,
  day,
  hour,
  newMemoryKeyManager,
  openAuthorities,
  seconds,
  trustDomain,
} from '../../../test/support/authorities.ts'
import { withPoints } from '../../../test/support/authority-life.ts'
import type { KeyManagerStatus } from '../plugin/key-manager/key-manager.ts'
import type { AuthorityEvent } from './authority-context.ts'
import { AuthorityManager } from './authority-manager.ts'
import type { AuthorityKindName } from './journal.ts'

const kinds: readonly AuthorityKindName[] = ['x509', 'jwt']
const jwtRequest = {
  spiffeId: spiffeId(trustDomain, '/web'),
  audience: ['a'],
  ttlSeconds: 0,
  includeJti: false,
}

const stateNames = (manager: AuthorityManager, kind: AuthorityKindName): string[] =>
  manager.states(kind).map(({ state }) => state)

const active = (manager: AuthorityManager, kind: AuthorityKindName) => {
  const found = manager.states(kind).find(({ state }) => state === 'active')
  assert.ok(found, `no ${kind} authority is active`)
  return found
}

/** Advances the clock by a minute and a round until `done`, at most for two days. */
async function roundsUntil(
  { manager, clock }: { manager: AuthorityManager; clock: FakeClock },
  done: () => boolean,
): Promise<void> {
  for (let waited = 0; !done(); waited += 60) {
    assert.ok(waited < 2 * day, 'it did not come')
    await clock.advance(seconds(60))
    await manager.round()
  }
}

test('AuthorityManager.open() has authorities active and published at first start (A20)', async () => {
  const { manager, bundle, keyManager, nowSeconds } = await openAuthorities()
  const { x509Authorities, jwtAuthorities, refreshHintSeconds, sequenceNumber } = await bundle()
  assert.equal(refreshHintSeconds, 300)
  assert.equal(sequenceNumber, 1n)
  const [x509, jwt] = [active(manager, 'x509'), active(manager, 'jwt')]
  assert.deepEqual(
    x509Authorities.map(({ certificate, tainted }) => [certificate, tainted]),
    [[x509.content, false]],
  )
  assert.equal(parseCertificate(x509.content).subjectKeyId?.toHex(), x509.authorityId)
  assert.deepEqual(jwtAuthorities, [
    {
      keyId: jwt.authorityId,
      publicKey: jwt.content,
      expiresAtSeconds: nowSeconds() + day,
      tainted: false,
    },
  ])
  assert.deepEqual(
    keyManager.keys().map(({ id }) => id),
    ['x509-ca/A/20260101T000000Z', 'jwt/A/20260101T000000Z'],
  )
  assert.deepEqual(manager.health(), { healthy: true, canIssue: true, detail: '' })
  assert.equal(x509.nextEvent, 'is replaced')
  assert.equal(x509.nextEventAtSeconds, nowSeconds() + day - 4 * hour)
})

test('AuthorityManager prepares at half, activates at a sixth, prunes a day after the end', async () => {
  const authorities = await openAuthorities()
  const { manager, clock, bundle, keyManager, nowSeconds } = authorities
  const start = nowSeconds()
  for (const kind of kinds) {
    const first = active(manager, kind)
    await clock.advance(seconds(start + day / 2 - 1 - nowSeconds()))
    if (kind === 'x509') await manager.round()
    if (kind === 'x509') assert.deepEqual(stateNames(manager, kind), ['active'])
    assert.equal(first.issuedAtSeconds, start)
  }
  await clock.advance(seconds(1))
  await manager.round()
  for (const kind of kinds) assert.deepEqual(stateNames(manager, kind), ['active', 'prepared'])
  const prepared = manager.states('x509')[1]
  assert.equal(prepared?.keyId, 'x509-ca/B/20260101T120000Z')
  assert.equal(prepared?.nextEvent, 'activates')
  assert.equal(prepared?.nextEventAtSeconds, start + 20 * hour)
  assert.equal((await bundle()).x509Authorities.length, 2)
  assert.equal((await bundle()).jwtAuthorities.length, 2)

  await clock.advance(seconds(8 * hour - 1))
  await manager.round()
  for (const kind of kinds) assert.deepEqual(stateNames(manager, kind), ['active', 'prepared'])
  await clock.advance(seconds(1))
  await manager.round()
  for (const kind of kinds) assert.deepEqual(stateNames(manager, kind), ['old', 'active'])
  const old = manager.states('jwt')[0]
  assert.equal(old?.nextEvent, 'leaves the bundle')
  assert.equal(old?.nextEventAtSeconds, start + 2 * day)

  const firstKeys = ['x509-ca/A/20260101T000000Z', 'jwt/A/20260101T000000Z']
  const has = (): boolean => firstKeys.some((id) => keyManager.key(id) !== undefined)
  assert.ok(has(), 'the keys are there until the next ones are made')
  await roundsUntil(authorities, () => stateNames(manager, 'x509').includes('prepared'))
  assert.ok(!has(), 'the keys are destroyed before there are three of a kind')
  assert.deepEqual(keyManager.keys().length, 4)
  const isPublished = async (): Promise<boolean> =>
    (await bundle()).jwtAuthorities.some(({ keyId }) => keyId === old?.authorityId)
  await roundsUntil(authorities, () => nowSeconds() >= start + 2 * day)
  assert.ok(await isPublished(), 'the bundle has the authority without its key')
  await roundsUntil(authorities, () => nowSeconds() > start + 2 * day)
  assert.ok(!(await isPublished()), 'it has left the bundle')
  assert.deepEqual(manager.orphanKeys(), [])
})

test('the sequence number grows with every change of authorities and with nothing else (G4)', async () => {
  const authorities = await openAuthorities()
  const { manager, bundle } = authorities
  const sequence = async () => (await bundle()).sequenceNumber
  assert.equal(await sequence(), 1n)
  await manager.round()
  assert.equal(await sequence(), 1n)
  const { authorityId } = await manager.prepare('x509')
  assert.equal(await sequence(), 2n)
  const before = active(manager, 'x509').authorityId
  await manager.activate('x509', authorityId)
  assert.equal(await sequence(), 2n)
  await manager.taint('x509', before)
  assert.equal(await sequence(), 3n)
  await manager.revoke('x509', before)
  assert.equal(await sequence(), 4n)
})

test('an authority that was late is not activated before it has been published for a while', async () => {
  const authorities = await openAuthorities()
  const { manager, clock, nowSeconds } = authorities
  const first = active(manager, 'x509')
  await clock.advance(seconds(23 * hour))
  await manager.round()
  assert.deepEqual(stateNames(manager, 'x509'), ['active', 'prepared'])
  const published = nowSeconds()
  await roundsUntil(authorities, () => active(manager, 'x509').keyId !== first.keyId)
  assert.equal(nowSeconds(), published + 60)
})

test('an authority that expired while the server was away is replaced at once', async () => {
  const before = await openAuthorities()
  const old = active(before.manager, 'x509').authorityId
  await before.clock.advance(seconds(day))
  const manager = await AuthorityManager.open({ ...before, svidDefaults: before.svidDefaults })
  assert.deepEqual(stateNames(manager, 'x509'), ['old', 'active'])
  assert.notEqual(active(manager, 'x509').authorityId, old)
  await manager.certificateAuthority.issueJwtSvid(jwtRequest)
})

test('a restart goes on with the same authorities', async () => {
  const before = await openAuthorities()
  await before.manager.prepare('x509')
  const manager = await AuthorityManager.open(before)
  // What the server before has signed lately is not known to the last second.
  const known = (of: AuthorityManager, kind: AuthorityKindName) =>
    of.states(kind).map((state) => ({ ...state, signedUntilSeconds: 0 }))
  for (const kind of kinds) assert.deepEqual(known(manager, kind), known(before.manager, kind))
  assert.equal(active(manager, 'x509').signedUntilSeconds, before.nowSeconds() + 2 * hour)
  assert.equal(before.keyManager.keys().length, 3)
})

test('lost keys: new authorities are active at once, old ones stay until they expire', async () => {
  const before = await openAuthorities()
  await before.manager.prepare('jwt')
  const keyManager = newMemoryKeyManager()
  const manager = await AuthorityManager.open({ ...before, keyManager })
  assert.deepEqual(stateNames(manager, 'x509'), ['old', 'active'])
  assert.deepEqual(stateNames(manager, 'jwt'), ['old', 'old', 'active'])
  const { x509Authorities, jwtAuthorities } = await before.bundle()
  assert.equal(x509Authorities.length, 2)
  assert.equal(jwtAuthorities.length, 3)
  assert.deepEqual(manager.orphanKeys(), [])
  await manager.certificateAuthority.issueJwtSvid(jwtRequest)
})

test('an authority somebody took out of the bundle is not used any more', async () => {
  const { manager, datastore, bundle, keyManager } = await openAuthorities()
  const lost = active(manager, 'jwt')
  await datastore.updateBundle(trustDomain, () => ({
    trustDomain,
    x509Authorities: [],
    jwtAuthorities: [],
    refreshHintSeconds: 300,
    sequenceNumber: 0n,
  }))
  await manager.round()
  assert.notEqual(active(manager, 'jwt').authorityId, lost.authorityId)
  assert.equal((await bundle()).jwtAuthorities.length, 1)
  assert.equal((await bundle()).x509Authorities.length, 1)
  assert.equal(keyManager.key(lost.keyId), undefined)
})

test('an authority of another trust domain is not used', async () => {
  const before = await openAuthorities()
  const manager = await AuthorityManager.open({
    ...before,
    trustDomain: parseTrustDomain('other.org'),
  })
  assert.equal(parseCertificate(active(manager, 'x509').content).uris[0], 'spiffe://other.org')
})

test('a changed key type counts from the next authority on', async () => {
  const before = await openAuthorities()
  const manager = await AuthorityManager.open({ ...before, caKeyType: 'ec-p384' })
  assert.equal(before.keyManager.key(active(manager, 'x509').keyId)?.type, 'ec-p256')
  const { keyId } = await manager.prepare('x509')
  assert.equal(before.keyManager.key(keyId)?.type, 'ec-p384')
})

test('preparing again replaces a prepared authority, which becomes old', async () => {
  const { manager, keyManager } = await openAuthorities()
  const one = await manager.prepare('x509')
  const other = await manager.prepare('x509')
  assert.notEqual(one.keyId, other.keyId)
  assert.deepEqual(stateNames(manager, 'x509'), ['active', 'old', 'prepared'])
  await manager.taint('x509', one.authorityId)
  await manager.revoke('x509', one.authorityId)
  assert.equal(keyManager.key(one.keyId), undefined)
})

test('two servers share a bundle and keep to their own authorities', async () => {
  const one = await openAuthorities()
  const keyManager = newMemoryKeyManager()
  const other = await AuthorityManager.open({ ...one, keyManager, serverName: 'server-2' })
  assert.equal((await one.bundle()).x509Authorities.length, 2)
  await other.round()
  await one.manager.round()
  assert.notEqual(active(other, 'x509').authorityId, active(one.manager, 'x509').authorityId)
  assert.deepEqual(stateNames(one.manager, 'x509'), ['active'])
  assert.deepEqual(stateNames(other, 'x509'), ['active'])
})

for (const kind of kinds) {
  test(`operators prepare, activate, taint and revoke ${kind} by spire-server's rules`, async () => {
    const { manager, bundle, keyManager } = await openAuthorities()
    const first = active(manager, kind)
    const fails = (call: Promise<unknown>, code: string, message: RegExp) =>
      assert.rejects(call, { name: 'AssayError', code, message })

    await fails(manager.activate(kind, 'x'), 'failed-precondition', /none is prepared/)
    await fails(manager.activate(kind, ''), 'invalid-argument', /no authority id is given/)
    const next = await manager.prepare(kind)
    assert.equal(next.state, 'prepared')
    await fails(
      manager.activate(kind, first.authorityId),
      'invalid-argument',
      /is the prepared one/,
    )
    for (const { authorityId } of [first, next]) {
      await fails(manager.taint(kind, authorityId), 'invalid-argument', /it is (active|prepared)/)
      await fails(manager.revoke(kind, authorityId), 'invalid-argument', /it is (active|prepared)/)
    }
    assert.equal((await manager.activate(kind, next.authorityId)).authorityId, next.authorityId)
    assert.equal(active(manager, kind).authorityId, next.authorityId)

    await fails(manager.taint(kind, ''), 'invalid-argument', /no authority id is given/)
    await fails(manager.taint(kind, 'unknown'), 'invalid-argument', /no old authority/)
    await fails(manager.revoke(kind, ''), 'invalid-argument', /no authority id is given/)
    await fails(manager.revoke(kind, 'unknown'), 'invalid-argument', /no old authority/)
    await fails(
      manager.revoke(kind, first.authorityId),
      'failed-precondition',
      /must be tainted first/,
    )
    await manager.taint(kind, first.authorityId)
    await fails(manager.taint(kind, first.authorityId), 'failed-precondition', /tainted already/)
    assert.equal(manager.states(kind)[0]?.tainted, true)
    const list = kind === 'x509' ? 'x509Authorities' : 'jwtAuthorities'
    assert.deepEqual(
      (await bundle())[list].map(({ tainted }) => tainted),
      [true, false],
    )
    assert.equal(manager.isTainted(Uint8Array.fromHex('00')), false)
    if (kind === 'x509') assert.ok(manager.isTainted(Uint8Array.fromHex(first.authorityId)))

    await manager.revoke(kind, first.authorityId)
    assert.equal((await bundle())[list].length, 1)
    assert.deepEqual(stateNames(manager, kind), ['active'])
    assert.equal(keyManager.key(first.keyId), undefined)
  })
}

test('a tainted JWT authority of nobody can be revoked, an X.509 one cannot', async () => {
  const { manager, datastore, bundle } = await openAuthorities()
  const publicKey = active(manager, 'jwt').content
  await datastore.updateBundle(trustDomain, (found) => {
    assert.ok(found)
    const stray = { keyId: 'stray', publicKey, expiresAtSeconds: 0, tainted: true }
    return { ...found, jwtAuthorities: [...found.jwtAuthorities, stray] }
  })
  await manager.revoke('jwt', 'stray')
  assert.equal((await bundle()).jwtAuthorities.length, 1)
  await assert.rejects(manager.revoke('x509', 'stray'), { code: 'invalid-argument' })
})

test('AuthorityManager.onEvent() tells what happened, in order, until it is disposed of', async () => {
  const { manager } = await openAuthorities()
  const events: AuthorityEvent[] = []
  const first = active(manager, 'x509').authorityId
  const listening = manager.onEvent((event) => events.push(event))
  const { authorityId } = await manager.prepare('x509')
  await manager.activate('x509', authorityId)
  await manager.taint('x509', first)
  await manager.revoke('x509', first)
  listening[Symbol.dispose]()
  await manager.prepare('jwt')
  assert.deepEqual(
    events.map((event) => [event.what, event.authorityId === first ? 'first' : 'second']),
    [
      ['prepared', 'second'],
      ['activated', 'second'],
      ['tainted', 'first'],
      ['revoked', 'first'],
      ['retired', 'first'],
    ],
  )
})

test('a key manager that is down stops issuing at once and loses no authority', async () => {
  const faulty = faultyKeyManager()
  const { manager, clock } = await openAuthorities({ keyManager: faulty.keyManager })
  const before = active(manager, 'x509')
  faulty.set({ state: 'down', detail: 'no token', where: 'test' })
  const started = performance.now()
  await assert.rejects(manager.certificateAuthority.issueJwtSvid(jwtRequest), {
    code: 'unavailable',
    message: /key manager is down: no token/,
  })
  assert.ok(performance.now() - started < 50)
  await manager.round()
  assert.equal(manager.health().healthy, true)
  for (let i = 0; i < 10; i++) await manager.round()
  assert.match(manager.health().detail, /11 rotation rounds have failed/)
  assert.deepEqual(active(manager, 'x509'), before)
  faulty.set({ state: 'ok', detail: '', where: 'test' })
  await manager.certificateAuthority.issueJwtSvid(jwtRequest)
  await clock.advance(seconds(10))
  await manager.round()
  assert.deepEqual(manager.health(), { healthy: true, canIssue: true, detail: '' })
})

test('a server starts with a key manager that is down, and issues as soon as it is back', async () => {
  const faulty = faultyKeyManager()
  faulty.set({ state: 'down', detail: 'no token', where: 'test' })
  const { manager, clock } = await openAuthorities({ keyManager: faulty.keyManager })
  assert.match(manager.health().detail, /no X.509 authority is active: .*no token/)
  const stop = new AbortController()
  const running = manager.run(stop.signal)
  await assert.rejects(manager.certificateAuthority.issueJwtSvid(jwtRequest), {
    code: 'unavailable',
  })
  const activated = Promise.withResolvers<void>()
  using _listening = manager.onEvent(({ kind, what }) => {
    if (kind === 'jwt' && what === 'activated') activated.resolve()
  })
  faulty.set({ state: 'ok', detail: '', where: 'test' })
  await activated.promise
  await manager.certificateAuthority.issueJwtSvid(jwtRequest)
  assert.equal(clock.now().toString(), '2026-01-01T00:00:00Z', 'without waiting for a tick')
  stop.abort()
  await running
})

test('AuthorityManager.run() makes a round every ten seconds and ends when told', async () => {
  const { manager, clock } = await openAuthorities()
  const stop = new AbortController()
  const running = manager.run(stop.signal)
  for (let round = 0; round < 3; round++) {
    while (clock.sleeping === 0) await setImmediate()
    assert.deepEqual(stateNames(manager, 'jwt'), ['active'])
    await clock.advance(seconds(round < 2 ? day / 4 - 5 : 10))
  }
  while (stateNames(manager, 'jwt').length === 1) await setImmediate()
  stop.abort()
  await running
})

test('a clock that went back stops issuing and rotation, and acceptClock() lets them go on (R9)', async () => {
  const before = await openAuthorities()
  await before.clock.advance(seconds(hour))
  await before.manager.round()
  const { clock } = await openAuthorities()
  const manager = await AuthorityManager.open({ ...before, clock })
  assert.match(manager.health().detail, /the clock says 2026-01-01T00:00:00Z/)
  await assert.rejects(manager.certificateAuthority.issueJwtSvid(jwtRequest), {
    code: 'unavailable',
    reason: 'clock-went-back',
  })
  await manager.acceptClock()
  assert.deepEqual(manager.health(), { healthy: true, canIssue: true, detail: '' })
  await manager.certificateAuthority.issueJwtSvid(jwtRequest)
})

test('AuthorityManager.open() refuses a journal it cannot read', async () => {
  const options = authorityOptions()
  await options.datastore.putJournal('server-1', '{"version":2}')
  await assert.rejects(AuthorityManager.open(options), /invalid authority journal/)
})

test('AuthorityManager.orphanKeys() names authority keys that no journal has, and no others', async () => {
  const { manager, keyManager } = await openAuthorities()
  await keyManager.generateKey('x509-ca/A/20200101T000000Z', 'ec-p256')
  await keyManager.generateKey('bundle-endpoint', 'ec-p256')
  assert.deepEqual(manager.orphanKeys(), ['x509-ca/A/20200101T000000Z'])
})

test('AuthorityManager.keysInPreparation() names the key of an authority that is half made, which is no orphan', async () => {
  const options = { ...authorityOptions(), clock: new FakeClock() }
  let isFull = false
  const cut = withPoints(options, (point) => {
    if (isFull && point.endsWith('before updateBundle')) throw new Error('disk full')
  })
  using manager = await AuthorityManager.open(cut)
  assert.deepEqual([...manager.keysInPreparation()], [])
  isFull = true
  await assert.rejects(manager.prepare('jwt'), /disk full/)
  const [[keyId, kind] = ['', ''], ...others] = [...manager.keysInPreparation()]
  assert.deepEqual([kind, others], ['jwt', []])
  assert.ok(options.keyManager.key(keyId))
  assert.deepEqual(manager.orphanKeys(), [])
  isFull = false
  await manager.round()
  assert.deepEqual([...manager.keysInPreparation()], [])
})

function faultyKeyManager() {
  const inner = newMemoryKeyManager()
  const listeners = new Set<(status: KeyManagerStatus) => void>()
  let status = inner.status()
  return {
    keyManager: {
      ...inner,
      status: () => status,
      onStatus(listener: (status: KeyManagerStatus) => void): Disposable {
        listeners.add(listener)
        return { [Symbol.dispose]: () => void listeners.delete(listener) }
      },
    },
    set(next: KeyManagerStatus): void {
      status = next
      for (const listener of listeners) listener(next)
    },
  }
}
