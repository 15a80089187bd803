import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeProtectedHeader } from 'jose'
import { parseCertificate } from '#pki/certificate.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import {
  day,
  hour,
  newMemoryKeyManager,
  openAuthorities,
  seconds,
  trustDomain,
} from '../../../test/support/authorities.ts'
import { below, pick, seeded } from '../../../test/support/seeded.ts'
import { AuthorityManager } from './authority-manager.ts'
import { propagationSeconds } from './slot.ts'

const workload = spiffeId(trustDomain, '/web')
const { publicKey } = generateEcKeyPair('ec-p256')

/** An SVID somebody holds: valid until then, and only with that authority. */
interface Held {
  readonly authorityId: string
  readonly expiresAtSeconds: number
}

async function issueBoth(manager: AuthorityManager): Promise<Held[]> {
  const authority = manager.certificateAuthority
  const x509 = await authority.issueX509Svid({ spiffeId: workload, publicKey, ttlSeconds: 0 })
  const jwt = await authority.issueJwtSvid({
    spiffeId: workload,
    audience: ['a'],
    ttlSeconds: 0,
    includeJti: false,
  })
  const [leaf] = x509.certificates
  assert.ok(leaf)
  return [
    {
      authorityId: parseCertificate(leaf).authorityKeyId?.toHex() ?? '',
      expiresAtSeconds: x509.expiresAtSeconds,
    },
    {
      authorityId: decodeProtectedHeader(jwt.token).kid ?? '',
      expiresAtSeconds: jwt.expiresAtSeconds,
    },
  ]
}

const authorityIds = (bundle: Bundle): Set<string> =>
  new Set([
    ...bundle.x509Authorities.map(
      ({ certificate }) => parseCertificate(certificate).subjectKeyId?.toHex() ?? '',
    ),
    ...bundle.jwtAuthorities.map(({ keyId }) => keyId),
  ])

function assertOneActive(manager: AuthorityManager): void {
  for (const kind of ['x509', 'jwt'] as const) {
    const states = manager.states(kind).map(({ state }) => state)
    assert.equal(states.filter((state) => state === 'active').length, 1, `${kind}: ${states}`)
    assert.ok(states.filter((state) => state === 'prepared').length <= 1, `${kind}: ${states}`)
  }
}

const lives: readonly { name: string; ttl: number; svidTtl: number; span: number }[] = [
  { name: 'of 30 days over two years', ttl: 30 * day, svidTtl: 2 * day, span: 2 * 365 * day },
  { name: 'of a day over a month', ttl: day, svidTtl: 6 * hour, span: 30 * day },
  { name: 'of a year over three years', ttl: 365 * day, svidTtl: 90 * day, span: 3 * 365 * day },
]
for (const { name, ttl, svidTtl, span } of lives) {
  test(`authorities ${name}: the bundle has what any live SVID needs, long before it is used`, async () => {
    const { manager, clock, bundle, nowSeconds, keyManager } = await openAuthorities({
      caTtlSeconds: ttl,
      svidDefaults: {
        x509SvidTtlSeconds: svidTtl,
        agentSvidTtlSeconds: svidTtl,
        jwtSvidTtlSeconds: svidTtl,
        jwtIssuer: undefined,
      },
    })
    const end = nowSeconds() + span
    const step = Math.min(ttl / 50, 2 * day)
    const handover = Math.min(ttl / 6, 7 * day)
    const firstSeen = new Map([...authorityIds(await bundle())].map((id) => [id, 0]))
    let held: Held[] = []
    let activated = 0
    using _listening = manager.onEvent(({ what }) => {
      if (what === 'activated') activated++
    })
    while (nowSeconds() < end) {
      await clock.advance(seconds(step))
      await manager.round()
      assert.deepEqual(manager.health(), { healthy: true, canIssue: true, detail: '' })
      const now = nowSeconds()
      const published = authorityIds(await bundle())
      for (const id of published) if (!firstSeen.has(id)) firstSeen.set(id, now)
      held = held.filter(({ expiresAtSeconds }) => expiresAtSeconds > now)
      for (const { authorityId } of held) assert.ok(published.has(authorityId))
      for (const fresh of await issueBoth(manager)) {
        assert.ok(fresh.expiresAtSeconds - now >= Math.min(svidTtl, handover - step))
        const since = now - (firstSeen.get(fresh.authorityId) ?? now)
        const delay = propagationSeconds({ issuedAtSeconds: 0, expiresAtSeconds: ttl }, 60)
        assert.ok(since >= delay, `used ${since} s after it was published`)
        held.push(fresh)
      }
      assertOneActive(manager)
      assert.ok(published.size <= 12, `${published.size} authorities are in the bundle`)
      assert.ok(keyManager.keys().length <= 12)
      assert.deepEqual(manager.orphanKeys(), [])
    }
    assert.ok(activated >= 2 * Math.floor(span / ttl), `${activated} activations`)
  })
}

for (const seed of [1, 2, 3, 4]) {
  test(`whatever operators, restarts and absences do (seed ${seed}), live SVIDs stay valid`, async () => {
    const random = seeded(seed)
    const parts = await openAuthorities()
    const { clock, bundle, nowSeconds } = parts
    let { manager, keyManager } = parts
    let held: Held[] = []
    for (let step = 0; step < 250; step++) {
      const prepared = manager.states('x509').find(({ state }) => state === 'prepared')
      switch (
        pick(random, ['time', 'time', 'time', 'absence', 'prepare', 'use', 'restart', 'loss'])
      ) {
        case 'time':
          await clock.advance(seconds(below(random, 2 * hour)))
          break
        case 'absence':
          await clock.advance(seconds(below(random, 2 * day)))
          break
        case 'prepare':
          await manager.prepare(pick(random, ['x509', 'jwt'] as const))
          break
        case 'use':
          if (prepared !== undefined) await manager.activate('x509', prepared.authorityId)
          break
        case 'restart':
          manager[Symbol.dispose]()
          manager = await AuthorityManager.open({ ...parts, keyManager })
          break
        case 'loss':
          manager[Symbol.dispose]()
          keyManager = newMemoryKeyManager()
          manager = await AuthorityManager.open({ ...parts, keyManager })
      }
      await manager.round()
      const published = authorityIds(await bundle())
      held = held.filter(({ expiresAtSeconds }) => expiresAtSeconds > nowSeconds())
      held.push(...(await issueBoth(manager)))
      for (const { authorityId } of held) assert.ok(published.has(authorityId), `step ${step}`)
      assertOneActive(manager)
      assert.deepEqual(manager.orphanKeys(), [])
    }
  })
}
