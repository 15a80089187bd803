import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import type { Peer, TlsPeer } from './call.ts'
import { PeerShares } from './peer-shares.ts'

const unix = (uid: number): Peer => ({
  kind: 'unix',
  pid: 1,
  uid,
  gid: 1,
  pidfd: undefined,
  startTime: 1n,
})
const tls = (address: string, id?: string): TlsPeer => ({
  kind: 'tls',
  address,
  spiffeId: id === undefined ? undefined : parseSpiffeId(id),
  certificate: undefined,
  serialNumber: '',
  expiresAtSeconds: 0,
  keyAgreement: 'X25519MLKEM768',
  pq: undefined,
  exporter: () => new Uint8Array(),
})
const agent = 'spiffe://example.org/spire/agent/x'

test('PeerShares counts the connections of a SPIFFE ID, from wherever they come, and forgets who has none', () => {
  const shares = new PeerShares({ maxConnections: 2 })
  const first = shares.enter(tls('10.0.0.1', agent))
  assert.ok(first !== undefined)
  assert.equal(shares.enter(tls('10.0.0.2', agent)), first)
  assert.equal(shares.enter(tls('10.0.0.3', agent)), undefined)
  assert.notEqual(shares.enter(tls('10.0.0.3', `${agent}y`)), undefined)
  shares.leave(first)
  assert.equal(shares.enter(tls('10.0.0.3', agent)), first)
  shares.leave(first)
  shares.leave(first)
  assert.equal(shares.size, 1)
})

test('PeerShares bounds neither connections nor calls of those who are not known, or are local', () => {
  const shares = new PeerShares({ maxConnections: 1, maxCalls: 1 })
  for (const peer of [tls('10.0.0.1'), unix(7)]) {
    for (let i = 0; i < 3; i++) assert.notEqual(shares.enter(peer)?.begin(), undefined)
  }
})

test('PeerShare bounds the calls and the bytes of a peer over all of its connections, until calls end', () => {
  const shares = new PeerShares({ maxCalls: 2, maxRequestBytes: 100 })
  const [one, other] = [tls('10.0.0.1', agent), tls('10.0.0.2', agent)].map((peer) =>
    shares.enter(peer)?.begin(),
  )
  assert.ok(one !== undefined && other !== undefined)
  assert.equal(shares.enter(tls('10.0.0.1', agent))?.begin(), undefined)
  assert.deepEqual([one.take(60), other.take(40), other.take(1)], [true, true, false])
  one.end()
  one.end()
  assert.equal(one.take(1), false)
  assert.deepEqual([other.take(60), other.take(1)], [true, false])
  assert.notEqual(shares.enter(tls('10.0.0.1', agent))?.begin(), undefined)
})

test('PeerShare bounds the bytes of a local user and of a source of strangers, each for itself', () => {
  const shares = new PeerShares({ maxRequestBytes: 100 })
  const peers = [unix(7), unix(8), tls('10.0.0.1'), tls('10.0.0.2')]
  for (const peer of peers) assert.equal(shares.enter(peer)?.begin()?.take(100), true)
  for (const peer of peers) assert.equal(shares.enter(peer)?.begin()?.take(1), false)
})
