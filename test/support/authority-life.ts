import assert from 'node:assert/strict'
import type { FakeClock } from '../../src/base/fake-clock.ts'
import { parseCertificate } from '../../src/pki/certificate.ts'
import { generateEcKeyPair } from '../../src/pki/private-key.ts'
import {
  AuthorityManager,
  type AuthorityManagerOptions,
} from '../../src/server/authority/authority-manager.ts'
import type { KeyManager } from '../../src/server/plugin/key-manager/key-manager.ts'
import { spiffeId } from '../../src/spiffe/spiffe-id.ts'
import { day, seconds, trustDomain } from './authorities.ts'

// A life of authorities in which everything happens once, cut off wherever a test likes.

type Options = AuthorityManagerOptions & { readonly clock: FakeClock }

const { publicKey } = generateEcKeyPair('ec-p256')
const kinds = ['x509', 'jwt'] as const

/** Calls after which something is durable, or that begin something that will be. */
const noted: ReadonlySet<PropertyKey> = new Set([
  'journal',
  'putJournal',
  'bundle',
  'updateBundle',
  'generateKey',
  'destroyKey',
])

/** The same object, but `at` is told before and after each call that reads or writes something durable. */
function observed<T extends object>(target: T, at: (point: string) => void): T {
  return new Proxy(target, {
    get(_, name) {
      const member: unknown = Reflect.get(target, name)
      if (typeof member !== 'function') return member
      if (!noted.has(name)) return member.bind(target)
      return async (...args: unknown[]) => {
        at(`before ${String(name)}`)
        const result: unknown = await Reflect.apply(member, target, args)
        at(`after ${String(name)}`)
        return result
      }
    },
  })
}

/** `options` with a datastore and key manager that tell `at` of each step, by name and number. */
export function withPoints(options: Options, at: (point: string) => void): Options {
  let count = 0
  const tell = (what: string): void => at(`${++count}: ${what}`)
  return {
    ...options,
    datastore: observed(options.datastore, tell),
    keyManager: observed<KeyManager>(options.keyManager, tell),
  }
}

/**
 * First start, rotation by time, taint and revocation by hand, pruning after the end, a whole rotation that an operator
 * asks for, with the end of the predecessor. `issued` is told the subject key identifier of whatever has signed X.509,
 * `prepared` that of what is ready to.
 */
export async function liveThrough(
  options: Options,
  issued: (authorityId: string) => void,
  prepared: (authorityId: string) => void = () => {},
): Promise<void> {
  const { clock } = options
  const manager = await AuthorityManager.open(options)
  using _events = manager.onEvent(({ kind, what, authorityId }) => {
    if (kind === 'x509' && what === 'prepared') prepared(authorityId)
  })
  const at = async (ageSeconds: number): Promise<void> => {
    const age = clock.now().since(start).total('seconds')
    await clock.advance(seconds(ageSeconds - age))
    await manager.round()
    issued(await issueOne(manager))
  }
  const start = clock.now()
  await at(10)
  await at(day / 2)
  await at((5 / 6) * day)
  for (const kind of kinds) {
    const [old] = manager.states(kind)
    assert.ok(old)
    await manager.taint(kind, old.authorityId)
    await manager.revoke(kind, old.authorityId)
    await manager.prepare(kind)
  }
  await at(1.5 * day)
  await at(2.5 * day + 10)
  for (const kind of kinds) {
    const wishes = { retire: true, force: true, afterSeconds: undefined, predecessorId: '' }
    for await (const _step of manager.rotate(kind, wishes, new AbortController().signal));
    issued(await issueOne(manager))
  }
  manager[Symbol.dispose]()
}

/** Issues an X.509-SVID, and tells which authority signed it. */
export async function issueOne({ certificateAuthority }: AuthorityManager): Promise<string> {
  const spiffe = spiffeId(trustDomain, '/web')
  const svid = await certificateAuthority.issueX509Svid({
    spiffeId: spiffe,
    publicKey,
    ttlSeconds: 60,
  })
  await certificateAuthority.issueJwtSvid({
    spiffeId: spiffe,
    audience: ['a'],
    ttlSeconds: 60,
    includeJti: false,
  })
  const [leaf] = svid.certificates
  assert.ok(leaf)
  return parseCertificate(leaf).authorityKeyId?.toHex() ?? ''
}

/**
 * What must hold after any restart: exactly one active authority of a kind and at most one successor, a key for
 * each of these, no key that no authority has and at most two of a kind, every authority in use in the bundle,
 * nothing in the bundle that is nobody's, and both kinds of SVID can be issued.
 *
 * @returns the authority that signs X.509-SVIDs.
 */
export async function checkAuthorities(
  manager: AuthorityManager,
  { datastore, keyManager }: Pick<Options, 'datastore' | 'keyManager'>,
): Promise<string> {
  const bundle = await datastore.bundle(trustDomain)
  assert.ok(bundle)
  const published = {
    x509: bundle.x509Authorities.map(
      ({ certificate }) => parseCertificate(certificate).subjectKeyId?.toHex() ?? '',
    ),
    jwt: bundle.jwtAuthorities.map(({ keyId }) => keyId),
  }
  for (const kind of kinds) {
    const states = manager.states(kind)
    const count = (state: string): number => states.filter((s) => s.state === state).length
    assert.equal(count('active'), 1, `active ${kind}`)
    assert.ok(count('prepared') <= 1, `prepared ${kind}`)
    assert.deepEqual(
      states.map(({ authorityId }) => authorityId).toSorted(),
      published[kind].toSorted(),
      `the journal and the bundle of ${kind}`,
    )
    const withKey = states.filter(({ keyId }) => keyManager.key(keyId) !== undefined)
    assert.ok(withKey.length <= 2, `${withKey.length} keys of ${kind}`)
    for (const { state, keyId } of states) {
      if (state !== 'old') assert.ok(keyManager.key(keyId), `the key of the ${state} ${kind}`)
    }
  }
  assert.deepEqual(manager.orphanKeys(), [])
  assert.deepEqual(manager.health(), { healthy: true, canIssue: true, detail: '' })
  return issueOne(manager)
}
