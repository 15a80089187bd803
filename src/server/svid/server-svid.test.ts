import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { silentLog } from '#base/log.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import {
  hour,
  newMemoryKeyManager,
  openAuthorities,
  seconds,
} from '../../../test/support/authorities.ts'
import { type ServerIdentity, ServerSvid } from './server-svid.ts'

async function openServerSvid(options: Parameters<typeof openAuthorities>[0] = {}) {
  const authorities = await openAuthorities(options)
  const svid = await ServerSvid.open({
    authorities: authorities.manager,
    clock: authorities.clock,
    keyType: 'ec-p256',
    log: silentLog,
  })
  return { ...authorities, svid }
}

function leafOf(identity: ServerIdentity | undefined) {
  const [der] = identity?.certificates ?? []
  assert.ok(der)
  return parseCertificate(der)
}

test('ServerSvid.open() has an SVID of the server whose key it holds', async () => {
  const { svid, bundle, nowSeconds } = await openServerSvid()
  const identity = svid.current()
  const leaf = leafOf(identity)
  const [root] = (await bundle()).x509Authorities
  assert.ok(root && identity)
  assert.deepEqual(leaf.uris, ['spiffe://example.org/spire/server'])
  assert.equal(identity.expiresAtSeconds, nowSeconds() + hour)
  assert.deepEqual(
    new Uint8Array(createPublicKey(identity.privateKey).export({ format: 'der', type: 'spki' })),
    leaf.publicKey,
  )
  const roots = [parseCertificate(root.certificate)]
  verifyChain({ leaf, intermediates: [], roots, nowSeconds: nowSeconds() })
})

test('ServerSvid.run() replaces the SVID at half its lifetime, with a new key', async () => {
  const { svid, clock, nowSeconds } = await openServerSvid()
  const stop = new AbortController()
  const running = svid.run(stop.signal)
  const first = svid.current()
  const rotated: ServerIdentity[] = []
  using _listening = svid.onRotate((identity) => rotated.push(identity))
  const start = nowSeconds()
  while (clock.sleeping === 0) await setImmediate()
  await clock.advance(seconds(hour / 2 - 5))
  while (clock.sleeping === 0) await setImmediate()
  assert.equal(svid.current(), first)
  await clock.advance(seconds(10))
  while (rotated.length === 0) await setImmediate()
  assert.deepEqual(rotated, [svid.current()])
  assert.ok((rotated[0]?.issuedAtSeconds ?? 0) >= start + hour / 2)
  assert.notDeepEqual(leafOf(rotated[0]).publicKey, leafOf(first).publicKey)
  stop.abort()
  await running
})

test('ServerSvid.run() replaces the SVID at once when its authority is tainted', async () => {
  const { svid, manager, clock } = await openServerSvid()
  const stop = new AbortController()
  const running = svid.run(stop.signal)
  const before = clock.now()
  const [old] = manager.states('x509')
  const { authorityId } = await manager.prepare('x509')
  await manager.activate('x509', authorityId)
  assert.ok(old)
  assert.equal(leafOf(svid.current()).authorityKeyId?.toHex(), old.authorityId)
  const rotated = Promise.withResolvers<ServerIdentity>()
  using _listening = svid.onRotate((identity) => rotated.resolve(identity))
  await manager.taint('x509', old.authorityId)
  assert.equal(leafOf(await rotated.promise).authorityKeyId?.toHex(), authorityId)
  assert.deepEqual(clock.now(), before)
  stop.abort()
  await running
})

test('ServerSvid waits for authorities that cannot issue yet, and keeps what it has', async () => {
  const inner = newMemoryKeyManager()
  let state: 'ok' | 'down' = 'down'
  const keyManager = { ...inner, status: () => ({ ...inner.status(), state }) }
  const { svid, manager, clock } = await openServerSvid({ keyManager })
  assert.equal(svid.current(), undefined)
  const stop = new AbortController()
  const running = svid.run(stop.signal)
  state = 'ok'
  await manager.round()
  while (svid.current() === undefined) await setImmediate()
  const first = svid.current()
  state = 'down'
  while (clock.sleeping === 0) await setImmediate()
  await clock.advance(seconds(hour))
  assert.equal(svid.current(), first)
  stop.abort()
  await running
})
