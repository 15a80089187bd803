import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { encodePem } from '#pki/pem.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { encodeBundle } from '#spiffe/bundle-json.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { type Issued, newAuthority, nowSeconds } from '../../../test/support/certificates.ts'
import { AgentStorage } from '../storage/agent-storage.ts'
import { TrustAnchor } from './trust-anchor.ts'
import { type BootstrapSource, loadBootstrapBundle } from './trust-bundle.ts'

const root = mkdtempSync(join(tmpdir(), 'assay-anchor-'))
after(() => rmSync(root, { recursive: true }))
const never = new AbortController().signal
const trustDomain = parseTrustDomain('example.org')
const given = newAuthority('example.org', { notAfterSeconds: nowSeconds + 4000 * 86_400 })
const current = newAuthority('example.org', { notAfterSeconds: nowSeconds + 86_400 })
const path = join(root, 'bundle.pem')
writeFileSync(path, encodePem('CERTIFICATE', given.certificate))
const fromFile: BootstrapSource = { kind: 'path', path, format: 'pem' }

function bundleOf({ certificate }: Issued): Bundle {
  return {
    trustDomain,
    x509Authorities: [{ certificate, tainted: false }],
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
  }
}

/** As after a start: a new anchor over the same directory. */
async function anchorOf(name: string, source: BootstrapSource = fromFile, clock = new FakeClock()) {
  const storage = await AgentStorage.open(join(root, name), { random: new SystemRandom() })
  return new TrustAnchor({ trustDomain, source, storage, clock, log: silentLog })
}

const authorityOf = (anchor: TrustAnchor): string => {
  const { trust } = anchor
  if (trust.kind === 'insecure') return 'insecure'
  const hex = trust.bundle.x509Authorities[0]?.certificate.toHex()
  return hex === given.certificate.toHex() ? 'given' : 'learnt'
}

test('TrustAnchor.readAgain() reads what the operator gave anew, until the server has sent its own', async () => {
  const anchor = await anchorOf('again')
  await anchor.prepare(never)
  const other = join(root, 'other.pem')
  writeFileSync(other, encodePem('CERTIFICATE', current.certificate))
  await anchor.prepare(never)
  assert.equal(authorityOf(anchor), 'given')
  anchor.readAgain({ kind: 'path', path: other, format: 'pem' })
  await anchor.prepare(never)
  assert.equal(authorityOf(anchor), 'learnt', 'the other file’s')
  anchor.learn(bundleOf(current))
  anchor.readAgain(fromFile)
  await anchor.prepare(never)
  assert.equal(authorityOf(anchor), 'learnt', 'what the server sent is not given up')
})

test('TrustAnchor begins with what the operator gave, and goes on with what the server sent, over restarts', async () => {
  const anchor = await anchorOf('restart')
  assert.throws(() => anchor.trust, { code: 'failed-precondition' })
  await anchor.prepare(never)
  assert.equal(authorityOf(anchor), 'given')
  anchor.learn(bundleOf(current))
  assert.equal(authorityOf(anchor), 'learnt')
  await anchor.saved()
  const again = await anchorOf('restart')
  await again.prepare(never)
  assert.equal(authorityOf(again), 'learnt')
})

test('TrustAnchor does not go back to what was given while an authority it learnt is alive', async () => {
  const clock = new FakeClock()
  const anchor = await anchorOf('alive', fromFile, clock)
  anchor.learn(bundleOf(current))
  await clock.advance(Temporal.Duration.from({ hours: 23 }))
  await anchor.prepare(never)
  assert.equal(authorityOf(anchor), 'learnt')
})

test('TrustAnchor goes back to what was given after a power-off that outlasts every authority', async () => {
  const clock = new FakeClock()
  const anchor = await anchorOf('power-off', fromFile, clock)
  anchor.learn(bundleOf(current))
  await anchor.saved()
  await clock.advance(Temporal.Duration.from({ hours: 24 * 400 }))
  const again = await anchorOf('power-off', fromFile, clock)
  await again.prepare(never)
  assert.equal(authorityOf(again), 'given')
})

test('TrustAnchor believes anybody only before the first contact, and only when told to', async () => {
  const anchor = await anchorOf('insecure', { kind: 'insecure' })
  await anchor.prepare(never)
  assert.equal(authorityOf(anchor), 'insecure')
  anchor.learn(bundleOf(current))
  await anchor.saved()
  const again = await anchorOf('insecure', { kind: 'insecure' })
  await again.prepare(never)
  assert.equal(authorityOf(again), 'learnt')
})

test('TrustAnchor passes a damaged bundle over', async () => {
  const anchor = await anchorOf('damaged')
  writeFileSync(join(root, 'damaged', 'bundle.json'), '{')
  await anchor.prepare(never)
  assert.equal(authorityOf(anchor), 'given')
})

test('loadBootstrapBundle() reads PEM and SPIFFE documents, and names what it cannot read', async () => {
  const document = join(root, 'bundle.json')
  writeFileSync(document, encodeBundle(bundleOf(given)))
  const bundle = await loadBootstrapBundle(
    { kind: 'path', path: document, format: 'spiffe' },
    trustDomain,
    never,
  )
  assert.equal(bundle.x509Authorities.length, 1)
  const empty = join(root, 'empty.pem')
  writeFileSync(empty, '')
  for (const bad of [empty, join(root, 'absent.pem'), document]) {
    await assert.rejects(
      loadBootstrapBundle({ kind: 'path', path: bad, format: 'pem' }, trustDomain, never),
      (error: Error) => error.message.includes(bad),
    )
  }
})
