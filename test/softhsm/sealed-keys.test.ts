// Post-quantum keys are software, sealed by a key that never leaves the token.
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SystemClock } from '#base/clock.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { labelPrefixOf } from '#hsm/label-prefix.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { altSignature } from '#pq-crypto/alternative-signature.ts'
import { AuthorityManager } from '#server/authority/authority-manager.ts'
import { openAlternativeKeys } from '#server/plugin/key-manager/alternative-keys.ts'
import { withAlternativeKeys } from '#server/plugin/key-manager/hybrid.ts'
import type { KeyManager } from '#server/plugin/key-manager/key-manager.ts'
import { openPkcs11KeyManager } from '#server/plugin/key-manager/pkcs11.ts'
import { TokenPair } from '#server/plugin/key-manager/token-pair.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { authorityOptions, seconds, trustDomain } from '../support/authorities.ts'
import { newSoftHsm, type SoftHsm } from '../support/softhsm.ts'

const random = new SystemRandom()

const openToken = (token: SoftHsm) =>
  openPkcs11KeyManager({
    module: token.module,
    tokenLabel: token.tokenLabel,
    pinFile: token.pinFile,
    environment: token.environment,
    trustDomain,
    clock: new SystemClock(),
    monotonicMs: () => performance.now(),
    random,
    log: silentLog,
  })

async function newPlace(): Promise<AsyncDisposable & { readonly path: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'assay-sealed-'))
  return {
    path: join(directory, 'post-quantum-keys.json'),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

async function openBoth(token: SoftHsm, path: string): Promise<KeyManager> {
  const classical = await openToken(token)
  const { sealer } = classical
  const alternatives = await openAlternativeKeys({ path, sealer, random, log: silentLog })
  return withAlternativeKeys(classical, { alternatives, parameterSet: 'ml-dsa-44' })
}

test('a server with a token seals its post-quantum keys by a key in the token, and has them again', async () => {
  await using token = await newSoftHsm()
  await using place = await newPlace()
  const options = authorityOptions({ pqParameterSet: 'ml-dsa-44' })
  let authorityId = ''
  {
    await using keyManager = await openBoth(token, place.path)
    using manager = await AuthorityManager.open({ ...options, keyManager })
    authorityId = manager.states('x509')[0]?.authorityId ?? ''
    assert.match(
      keyManager.status().alternativeWhere ?? '',
      /^software, file \S+, sealed by pkcs11 token "\S+" serial [0-9a-f]+$/,
    )
    // Only key pairs are listed: the key that seals is none.
    assert.deepEqual(
      keyManager
        .keys()
        .map(({ id }) => id.split('/')[0])
        .sort(),
      ['jwt', 'x509-ca'],
    )
  }
  const written = await readFile(place.path, 'utf8')
  assert.match(written, /"sealed": /)
  assert.doesNotMatch(written, /"seed"/)
  const listed = await token.pkcs11Tool('--list-objects', '--type', 'secrkey')
  assert.match(listed, new RegExp(`label: +${labelPrefixOf(trustDomain)}seal`))
  assert.match(listed, /Access: +sensitive, always sensitive, never extractable, local/)
  await using keyManager = await openBoth(token, place.path)
  using manager = await AuthorityManager.open({ ...options, keyManager })
  assert.equal(manager.states('x509')[0]?.authorityId, authorityId)
})

test('what one token has sealed no other opens, nor under another name, nor changed', async () => {
  await using token = await newSoftHsm()
  await using other = await newSoftHsm()
  await using place = await newPlace()
  {
    await using manager = await openBoth(token, place.path)
    await manager.generateKey('x509-ca/A/1', 'ec-p256')
  }
  const written = JSON.parse(await readFile(place.path, 'utf8'))
  const record = written.keys['x509-ca/A/1']
  const sealed = Uint8Array.fromBase64(record.sealed)
  await using keyManager = await openToken(token)
  const refused = async (name: string, bytes: Uint8Array): Promise<void> => {
    await assert.rejects(keyManager.sealer?.unseal(name, bytes) ?? Promise.resolve(), {
      code: 'failed-precondition',
      message: /cannot unseal: /,
    })
  }
  assert.equal((await keyManager.sealer?.unseal('x509-ca/A/1', sealed))?.length, 32)
  await refused('x509-ca/A/2', sealed)
  for (const at of [0, 12, 30, sealed.length - 1]) {
    const changed = Uint8Array.from(sealed)
    changed[at] = (changed[at] ?? 0) ^ 1
    await refused('x509-ca/A/1', changed)
  }
  for (const length of [0, 5, 12, 13, sealed.length - 1]) {
    await refused('x509-ca/A/1', sealed.subarray(0, length))
  }
  // The token was asked what it is not; it is as well as before.
  assert.equal(keyManager.status().state, 'ok')
  assert.equal(keyManager.counters.recoveries, 0)
  await using stranger = await openToken(other)
  const moved = openAlternativeKeys({
    path: place.path,
    sealer: stranger.sealer,
    random,
    log: silentLog,
  })
  await assert.rejects(moved, { code: 'failed-precondition', message: /the token has no key/ })
  await writeFile(place.path, JSON.stringify({ ...written, keys: { 'x509-ca/A/9': record } }))
  const { sealer } = keyManager
  await assert.rejects(openAlternativeKeys({ path: place.path, sealer, random, log: silentLog }), {
    code: 'failed-precondition',
  })
})

test('a server that starts without its token signs both ways as soon as the token is there, by the same authority', async () => {
  await using token = await newSoftHsm()
  await using place = await newPlace()
  const options = authorityOptions({ pqParameterSet: 'ml-dsa-44' })
  let authorityId = ''
  {
    await using keyManager = await openBoth(token, place.path)
    using manager = await AuthorityManager.open({ ...options, keyManager })
    authorityId = manager.states('x509')[0]?.authorityId ?? ''
  }
  await token.unplug()
  await using keyManager = await openBoth(token, place.path)
  using manager = await AuthorityManager.open({ ...options, keyManager })
  assert.equal(keyManager.status().state, 'down')
  const { promise: isBack, resolve } = Promise.withResolvers<void>()
  using _listening = keyManager.onStatus(({ state }) => {
    if (state === 'ok') resolve()
  })
  await token.plug()
  await isBack
  await manager.round()
  const [active] = manager.states('x509')
  assert.deepEqual([active?.authorityId, active?.state], [authorityId, 'active'])
  const { certificates } = await manager.certificateAuthority.issueX509Svid({
    spiffeId: spiffeId(trustDomain, '/web'),
    publicKey: generateEcKeyPair('ec-p256').publicKey,
    ttlSeconds: 0,
  })
  const [leaf] = certificates.map((der) => parseCertificate(der))
  assert.ok(leaf && altSignature(leaf))
})

test('a server that starts while the first of its two tokens is away signs both ways with the second', async () => {
  await using firstToken = await newSoftHsm()
  await using secondToken = await newSoftHsm()
  await using place = await newPlace()
  const clock = new FakeClock()
  const options = authorityOptions({ clock, pqParameterSet: 'ml-dsa-44' })
  const openPair = async (): Promise<KeyManager> => {
    const classical = new TokenPair(await openToken(firstToken), await openToken(secondToken), {
      promoteAfter: Temporal.Duration.from({ seconds: 0 }),
      monotonicMs: () => performance.now(),
    })
    const { sealer } = classical
    const alternatives = await openAlternativeKeys({
      path: place.path,
      sealer,
      random,
      log: silentLog,
    })
    return withAlternativeKeys(classical, { alternatives, parameterSet: 'ml-dsa-44' })
  }
  let prepared = ''
  {
    await using keyManager = await openPair()
    using manager = await AuthorityManager.open({ ...options, keyManager })
    await manager.round()
    prepared = manager.states('x509').find(({ state }) => state === 'prepared')?.authorityId ?? ''
    assert.notEqual(prepared, '')
  }
  await firstToken.unplug()
  await using keyManager = await openPair()
  assert.equal(keyManager.status().state, 'degraded')
  using manager = await AuthorityManager.open({ ...options, keyManager })
  await clock.advance(seconds(120))
  await manager.round()
  const active = manager.states('x509').find(({ state }) => state === 'active')
  assert.equal(active?.authorityId, prepared, 'the one in the token that is there')
  const { certificates } = await manager.certificateAuthority.issueX509Svid({
    spiffeId: spiffeId(trustDomain, '/web'),
    publicKey: generateEcKeyPair('ec-p256').publicKey,
    ttlSeconds: 0,
  })
  const [leaf] = certificates.map((der) => parseCertificate(der))
  assert.ok(leaf && altSignature(leaf))
  await firstToken.plug()
})
