import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { contextConstructed, contextPrimitive, sequence } from '#pki/der.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { verifyX509Svid } from '#spiffe/x509-svid.ts'
import {
  day,
  hour,
  openAuthorities,
  seconds,
  trustDomain,
} from '../../../test/support/authorities.ts'
import {
  type CertificateOptions,
  extension,
  type Issued,
  newAuthority,
  newIntermediate,
  nowSeconds as start,
} from '../../../test/support/certificates.ts'
import { newUpstreamFolder } from '../../../test/support/upstream.ts'
import type { AuthorityManagerOptions } from './authority-manager.ts'
import { AuthorityManager } from './authority-manager.ts'

const year = 365 * day
const idOf = ({ certificate }: Issued): string =>
  parseCertificate(certificate).subjectKeyId?.toHex() ?? ''

const newRoot = (options: CertificateOptions = {}): Issued =>
  newAuthority('example.org', { notAfterSeconds: start + 10 * year, ...options })
const newCa = (root: Issued, options: CertificateOptions = {}): Issued =>
  newIntermediate(root, 'example.org', { notAfterSeconds: start + year, ...options })

/** Authorities below an upstream: an intermediate CA of a root, unless `write` says otherwise. */
async function below(
  upstream: {
    readonly root?: Issued
    readonly ca?: Issued
    readonly isRoot?: boolean
    readonly options?: Partial<AuthorityManagerOptions>
  } = {},
) {
  const root = upstream.root ?? newRoot()
  const ca = upstream.ca ?? (upstream.isRoot === true ? root : newCa(root))
  const folder = await newUpstreamFolder()
  await folder.write(ca, [], [root])
  const clock = new FakeClock()
  const upstreamAuthority = folder.open(clock)
  const authorities = await openAuthorities({ upstreamAuthority, ...upstream.options, clock })
  return { ...authorities, clock, upstreamAuthority, folder, root, ca }
}

async function newSvid(manager: AuthorityManager): Promise<readonly Uint8Array[]> {
  const { certificates } = await manager.certificateAuthority.issueX509Svid({
    spiffeId: spiffeId(trustDomain, '/web'),
    publicKey: generateEcKeyPair('ec-p256').publicKey,
    ttlSeconds: 0,
  })
  return certificates
}

const stateNames = (manager: AuthorityManager): string[] =>
  manager.states('x509').map(({ state }) => state)

const bundleIds = async ({ bundle }: Awaited<ReturnType<typeof below>>): Promise<string[]> =>
  (await bundle()).x509Authorities.map(({ certificate }) =>
    String(parseCertificate(certificate).subjectKeyId?.toHex()),
  )

async function advance(
  { clock, manager }: { clock: FakeClock; manager: AuthorityManager },
  count: number,
): Promise<void> {
  await clock.advance(seconds(count))
  await manager.round()
}

test('below an upstream authority SVIDs carry the chain, and the bundle has the root alone', async () => {
  const authorities = await below()
  await using _folder = authorities.folder
  const { manager, root, ca, bundle, nowSeconds } = authorities
  const certificates = await newSvid(manager)
  assert.equal(certificates.length, 3)
  assert.deepEqual(certificates[2], ca.certificate)
  assert.deepEqual(await bundleIds(authorities), [idOf(root)])
  const held = await bundle()
  const verified = verifyX509Svid({ certificates, bundles: () => held, nowSeconds: nowSeconds() })
  assert.equal(verified.spiffeId, 'spiffe://example.org/web')
  const [state] = manager.states('x509')
  const own = parseCertificate(certificates[1] ?? new Uint8Array())
  assert.equal(state?.authorityId, own.subjectKeyId?.toHex())
  assert.equal(own.authorityKeyId?.toHex(), idOf(ca))
  assert.equal(own.uris[0], 'spiffe://example.org')
  assert.deepEqual(manager.upstream(), { problem: undefined, endSeconds: start + year })
})

test('below a root the chain is the authority alone', async () => {
  const { manager, root, folder } = await below({ isRoot: true })
  await using _folder = folder
  const certificates = await newSvid(manager)
  assert.equal(certificates.length, 2)
  const own = parseCertificate(certificates[1] ?? new Uint8Array())
  assert.equal(own.authorityKeyId?.toHex(), idOf(root))
})

test('authorities rotate below the same root without a change of the bundle, and are forgotten', async () => {
  const authorities = await below()
  await using _folder = authorities.folder
  const { manager, keyManager, bundle } = authorities
  const first = manager.states('x509')[0]?.keyId ?? ''
  await advance(authorities, day / 2)
  assert.deepEqual(stateNames(manager), ['active', 'prepared'])
  await advance(authorities, day / 3)
  assert.deepEqual(stateNames(manager), ['old', 'active'])
  assert.equal(manager.states('x509')[0]?.nextEvent, 'is forgotten')
  assert.deepEqual((await bundle()).x509Authorities.length, 1)
  for (let half = 0; half < 5; half++) await advance(authorities, day / 2)
  assert.ok(!manager.states('x509').some(({ keyId }) => keyId === first))
  assert.equal(keyManager.key(first), undefined)
})

test('a restart goes on with the same authority, chain and all, also while the files are gone', async () => {
  const authorities = await below()
  const { manager, folder } = authorities
  const [state] = manager.states('x509')
  await folder[Symbol.asyncDispose]()
  const again = await AuthorityManager.open(authorities)
  assert.deepEqual(again.states('x509')[0]?.upstream, state?.upstream)
  assert.equal(again.states('x509')[0]?.authorityId, state?.authorityId)
  assert.equal((await newSvid(again)).length, 3)
  assert.match(
    again.upstream()?.problem ?? '',
    /cannot use the upstream authority in .*no such file/,
  )
  assert.equal(again.health().canIssue, true)
})

test('an authority ends no later than what is above it, and no shorter ones follow', async () => {
  const root = newRoot()
  const ca = newCa(root, { notAfterSeconds: start + 6 * hour })
  const authorities = await below({ root, ca })
  await using folder = authorities.folder
  const { manager, keyManager } = authorities
  assert.equal(manager.states('x509')[0]?.expiresAtSeconds, start + 6 * hour)
  await advance(authorities, 5 * hour)
  await advance(authorities, hour - 20)
  assert.deepEqual(stateNames(manager), ['active'])
  assert.equal(keyManager.keys().filter(({ id }) => id.startsWith('x509')).length, 1)
  assert.match(manager.upstream()?.problem ?? '', /ends at 2026-01-01T06:00:00Z.*renew it/)

  await folder.write(newCa(root), [], [root])
  await advance(authorities, 10)
  assert.equal(manager.upstream()?.problem, undefined)
  await advance(authorities, 5)
  assert.deepEqual(stateNames(manager), ['active', 'prepared'])
  assert.equal(manager.states('x509')[1]?.expiresAtSeconds, start + 6 * hour - 10 + day)
})

test('the end of an upstream is told of long before it comes', async () => {
  const lines: string[] = []
  const log = {
    debug() {},
    info() {},
    error() {},
    warn: (_fields: object, text: string) => {
      if (text.startsWith('the upstream')) lines.push(text)
    },
    child: () => log,
  }
  const authorities = await below({ options: { log } })
  await using _folder = authorities.folder
  await advance(authorities, year - 31 * day)
  assert.deepEqual(lines, [])
  await advance(authorities, 2 * day)
  await advance(authorities, 10)
  assert.equal(lines.length, 1)
  assert.match(lines[0] ?? '', /ends at 2027-01-01T00:00:00Z/)
  await advance(authorities, day)
  assert.equal(lines.length, 2)
})

test('a new root is published before anything is signed below it', async () => {
  const authorities = await below()
  await using folder = authorities.folder
  const { manager, root } = authorities
  const nextRoot = newRoot()
  const nextCa = newCa(nextRoot)
  await folder.write(authorities.ca, [], [root, nextRoot])
  await advance(authorities, 10)
  assert.deepEqual(await bundleIds(authorities), [idOf(root), idOf(nextRoot)])
  await folder.write(nextCa, [], [root, nextRoot])
  await advance(authorities, day / 2)
  assert.deepEqual((await newSvid(manager))[2], authorities.ca.certificate)
  await advance(authorities, day / 3)
  assert.deepEqual((await newSvid(manager))[2], nextCa.certificate)
})

test('a root is tainted and revoked when only old authorities are below it', async () => {
  const authorities = await below()
  await using folder = authorities.folder
  const { manager, root, bundle, keyManager } = authorities
  const old = idOf(root)
  const nextRoot = newRoot()
  await assert.rejects(manager.taintUpstream(old), { code: 'invalid-argument' })
  await assert.rejects(manager.taintUpstream(''), { code: 'invalid-argument' })
  await assert.rejects(manager.taintUpstream('00'), { code: 'invalid-argument' })
  await folder.write(newCa(nextRoot), [], [root, nextRoot])
  const prepared = await manager.prepare('x509')
  await assert.rejects(manager.taintUpstream(idOf(nextRoot)), { code: 'invalid-argument' })
  await manager.activate('x509', prepared.authorityId)
  const [first] = manager.states('x509')
  for (const action of ['taint', 'revoke'] as const) {
    await assert.rejects(manager[action]('x509', first?.authorityId ?? ''), {
      code: 'failed-precondition',
      reason: 'upstream-authority',
    })
  }
  await assert.rejects(manager.taintUpstream(idOf(authorities.ca)), {
    code: 'internal',
    message: new RegExp(`the root above it, ${old}`),
  })
  await assert.rejects(manager.revokeUpstream(old), {
    code: 'invalid-argument',
    message: /bundle_file_path/,
  })
  await folder.write(newCa(nextRoot), [], [nextRoot])
  await assert.rejects(manager.revokeUpstream(old), { code: 'internal' })
  await manager.taintUpstream(old)
  await assert.rejects(manager.taintUpstream(old), { code: 'internal' })
  assert.deepEqual(
    (await bundle()).x509Authorities.map(({ tainted }) => tainted),
    [true, false],
  )
  assert.ok(manager.isTainted(parseCertificate(root.certificate).subjectKeyId ?? new Uint8Array()))
  await manager.revokeUpstream(old)
  assert.deepEqual(await bundleIds(authorities), [idOf(nextRoot)])
  assert.deepEqual(stateNames(manager), ['active'])
  assert.equal(keyManager.key(first?.keyId ?? ''), undefined)
  await advance(authorities, 10)
  assert.deepEqual(await bundleIds(authorities), [idOf(nextRoot)])
})

test('a root is not tainted while it is above the active or the prepared authority', async () => {
  const authorities = await below()
  await using folder = authorities.folder
  const { manager, root } = authorities
  const { authorityId } = await manager.prepare('x509')
  await manager.activate('x509', authorityId)
  assert.deepEqual(stateNames(manager), ['old', 'active'])
  const refused = (message: RegExp) => ({ code: 'invalid-argument', message })
  await assert.rejects(manager.taintUpstream(idOf(root)), refused(/above the active/))
  const nextRoot = newRoot()
  await folder.write(newCa(nextRoot), [], [root, nextRoot])
  const next = await manager.prepare('x509')
  await manager.activate('x509', next.authorityId)
  await folder.write(authorities.ca, [], [root, nextRoot])
  await manager.prepare('x509')
  await assert.rejects(manager.taintUpstream(idOf(root)), refused(/above the prepared/))
})

test('without an upstream authority there is none to taint', async () => {
  const { manager } = await openAuthorities()
  for (const action of ['taintUpstream', 'revokeUpstream'] as const) {
    await assert.rejects(manager[action]('00'), {
      code: 'failed-precondition',
      reason: 'no-upstream-authority',
    })
  }
  assert.equal(manager.upstream(), undefined)
})

test('a server that is put below an upstream, and out again, changes over without a gap', async () => {
  const before = await openAuthorities()
  const { clock, bundle } = before
  const selfSigned = before.manager.states('x509')[0]
  await using folder = await newUpstreamFolder()
  const root = newRoot()
  await folder.write(newCa(root), [], [root])
  const manager = await AuthorityManager.open({ ...before, upstreamAuthority: folder.open(clock) })
  assert.deepEqual(stateNames(manager), ['active', 'prepared'])
  assert.equal((await newSvid(manager)).length, 1)
  assert.equal((await bundle()).x509Authorities.length, 2)
  await advance({ clock, manager }, 60)
  assert.deepEqual(stateNames(manager), ['old', 'active'])
  assert.equal((await newSvid(manager)).length, 3)
  // What was its own is still its own to take away.
  await manager.taint('x509', selfSigned?.authorityId ?? '')
  await manager.revoke('x509', selfSigned?.authorityId ?? '')
  assert.equal((await bundle()).x509Authorities.length, 1)

  const after = await AuthorityManager.open({ ...before, upstreamAuthority: undefined })
  await advance({ clock, manager: after }, 60)
  assert.equal((await newSvid(after)).length, 1)
})

test('DNS names that a CA above does not allow are refused, not issued in vain', async () => {
  const permitted = contextConstructed(
    0,
    sequence(contextPrimitive(6, utf8Bytes('example.org'))),
    sequence(contextPrimitive(2, utf8Bytes('example.org'))),
  )
  const root = newRoot()
  const ca = newCa(root, { extensions: [extension('2.5.29.30', true, sequence(permitted))] })
  const { manager, folder } = await below({ root, ca })
  await using _folder = folder
  const request = (dnsName: string) => ({
    spiffeId: spiffeId(trustDomain, '/web'),
    publicKey: generateEcKeyPair('ec-p256').publicKey,
    ttlSeconds: 0,
    dnsNames: [dnsName],
  })
  const { certificateAuthority } = manager
  assert.ok(await certificateAuthority.issueX509Svid(request('web.example.org')))
  await assert.rejects(certificateAuthority.issueX509Svid(request('web.example.com')), {
    code: 'invalid-argument',
    message: /web\.example\.com/,
  })
})

test('rotate() below an upstream authority replaces the intermediate, and retires none', async () => {
  const { manager, bundle } = await below()
  const before = (await bundle()).sequenceNumber
  const rotate = async (retire: boolean): Promise<string[]> => {
    const steps: string[] = []
    const wishes = { retire, force: true, afterSeconds: undefined, predecessorId: '' }
    for await (const { step } of manager.rotate('x509', wishes, new AbortController().signal)) {
      steps.push(step)
    }
    return steps
  }
  await assert.rejects(rotate(true), { code: 'failed-precondition', reason: 'upstream-authority' })
  assert.deepEqual(manager.rotations(), [], 'nothing is begun')
  assert.deepEqual(await rotate(false), ['begun', 'prepared', 'activated', 'done'])
  assert.deepEqual(stateNames(manager), ['old', 'active'])
  assert.equal((await bundle()).sequenceNumber, before, 'the root is known already')
})
