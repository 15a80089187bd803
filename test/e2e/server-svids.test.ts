import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { base64Url, parseBase64Url, utf8Text } from '#base/bytes.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { csrOf, idOf, LiveServer } from '../support/live-server.ts'

const live = await LiveServer.start()
after(() => live[Symbol.asyncDispose]())
const agent = await live.attest()
const other = await live.attest()
const svids = agent.connection.client(SVIDDefinition)
const mints = live.local.client(SVIDDefinition)
const mine = await live.createEntry({
  parent: agent.id,
  path: '/mine',
  more: { dnsNames: ['mine.example.org'], x509SvidTtl: 600, jwtSvidTtl: 60, hint: 'internal' },
})
const theirs = await live.createEntry({ parent: other.id, path: '/theirs' })
const key = generateEcKeyPair('ec-p256')
const codes = { ok: 0, invalidArgument: 3, notFound: 5 }

const leafOf = (chain: readonly Uint8Array[] = []) => parseCertificate(chain[0] ?? new Uint8Array())

test('BatchNewX509SVID signs what the entry says, for the key of the request', async () => {
  const { results } = await svids.batchNewX509SVID({
    params: [{ entryId: mine.id, csr: csrOf(key) }],
  })
  const [result] = results
  assert.equal(result?.status?.code, codes.ok)
  assert.equal(result?.svid?.hint, 'internal')
  const leaf = leafOf(result?.svid?.certChain)
  assert.deepEqual(leaf.uris, ['spiffe://example.org/mine'])
  assert.deepEqual(leaf.dnsNames, ['mine.example.org'])
  assert.equal(leaf.publicKey.toHex(), key.publicKey.toHex())
  assert.equal(leaf.notAfterSeconds - leaf.notBeforeSeconds, 610)
})

test('BatchNewX509SVID keeps order and count, with a status for every item', async () => {
  const good = { entryId: mine.id, csr: csrOf(key) }
  const params = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? good : { entryId: 'none' }))
  const { results } = await svids.batchNewX509SVID({ params })
  assert.deepEqual(
    results.map(({ status }) => status?.code),
    params.map((item) => (item === good ? codes.ok : codes.notFound)),
  )
})

const tampered = csrOf(key)
tampered[tampered.length - 1] = (tampered.at(-1) ?? 0) ^ 1

for (const [what, params, code] of [
  ['an entry of another agent', { entryId: theirs.id, csr: csrOf(key) }, codes.notFound],
  ['an entry that is not there', { entryId: 'none', csr: csrOf(key) }, codes.notFound],
  ['no entry', { csr: csrOf(key) }, codes.invalidArgument],
  ['no CSR', { entryId: mine.id }, codes.invalidArgument],
  ['a CSR of noise', { entryId: mine.id, csr: Uint8Array.of(1, 2, 3) }, codes.invalidArgument],
  ['a CSR not signed by its key', { entryId: mine.id, csr: tampered }, codes.invalidArgument],
] as const) {
  test(`BatchNewX509SVID refuses ${what}`, async () => {
    const { results } = await svids.batchNewX509SVID({ params: [params] })
    assert.equal(results[0]?.status?.code, code)
    assert.equal(results[0]?.svid, undefined)
  })
}

for (const uris of [
  ['spiffe://example.org/spire/server'],
  [`${other.id}`],
  ['spiffe://other.org/mine'],
  ['spiffe://example.org/mine', 'spiffe://example.org/admin'],
  ['spiffe://example.org/mine/../admin'],
  ['spiffe://example.org/%61dmin'],
]) {
  test(`BatchNewX509SVID gives nothing of what a CSR claims: ${uris.join(' and ')}`, async () => {
    const { results } = await svids.batchNewX509SVID({
      params: [{ entryId: mine.id, csr: csrOf(key, uris) }],
    })
    assert.deepEqual(leafOf(results[0]?.svid?.certChain).uris, ['spiffe://example.org/mine'])
  })

  test(`RenewAgent gives nothing of what a CSR claims: ${uris.join(' and ')}`, async () => {
    const fresh = await live.attest()
    const { svid } = await fresh.connection
      .client(AgentDefinition)
      .renewAgent({ params: { csr: csrOf(key, uris) } })
    assert.deepEqual(leafOf(svid?.certChain).uris, [fresh.id])
  })
}

test('an agent that is banned gets no more SVIDs on the connection it has', async () => {
  const gone = await live.attest()
  const entry = await live.createEntry({ parent: gone.id, path: '/gone' })
  const request = { params: [{ entryId: entry.id, csr: csrOf(key) }] }
  const client = gone.connection.client(SVIDDefinition)
  assert.equal((await client.batchNewX509SVID(request)).results[0]?.status?.code, codes.ok)
  await live.local.client(AgentDefinition).banAgent({ id: idOf(gone.id) })
  await assert.rejects(client.batchNewX509SVID(request), { reason: 'agent-banned' })
})

test('an entry that is deleted gives no more SVIDs', async () => {
  const entry = await live.createEntry({ parent: agent.id, path: '/short-lived' })
  const request = { params: [{ entryId: entry.id, csr: csrOf(key) }] }
  assert.equal((await svids.batchNewX509SVID(request)).results[0]?.status?.code, codes.ok)
  await live.datastore.deleteEntry(entry.id)
  assert.equal((await svids.batchNewX509SVID(request)).results[0]?.status?.code, codes.notFound)
})

test('NewJWTSVID signs for the entry and the audience', async () => {
  const { svid } = await svids.newJWTSVID({ entryId: mine.id, audience: ['db'] })
  const claims = JSON.parse(utf8Text(parseBase64Url(svid?.token.split('.')[1] ?? '')))
  assert.equal(claims.sub, 'spiffe://example.org/mine')
  assert.deepEqual(claims.aud, ['db'])
  assert.equal((svid?.expiresAt ?? 0) - (svid?.issuedAt ?? 0), 60)
  assert.equal(svid?.hint, 'internal')
  assert.equal(svid?.id?.path, '/mine')
})

test('NewJWTSVID refuses an entry of another agent, and an empty audience', async () => {
  await assert.rejects(svids.newJWTSVID({ entryId: theirs.id, audience: ['db'] }), {
    code: 'not-found',
  })
  await assert.rejects(svids.newJWTSVID({ entryId: mine.id }), { code: 'invalid-argument' })
})

test('MintX509SVID and MintJWTSVID give operators any workload’s identity', async () => {
  const { svid } = await mints.mintX509SVID({
    csr: csrOf(key, ['spiffe://example.org/any']),
    ttl: 120,
  })
  assert.deepEqual(leafOf(svid?.certChain).uris, ['spiffe://example.org/any'])
  const jwt = await mints.mintJWTSVID({
    id: { trustDomain: 'example.org', path: '/any' },
    audience: ['a'],
    ttl: 30,
  })
  assert.ok(jwt.svid?.token.startsWith(base64Url(new TextEncoder().encode('{"alg'))))
})

for (const uris of [
  [],
  ['spiffe://example.org/a', 'spiffe://example.org/b'],
  ['spiffe://example.org'],
  ['spiffe://example.org/spire/server'],
  ['spiffe://example.org/spire/agent/x'],
  ['spiffe://other.org/a'],
  ['https://example.org/a'],
]) {
  test(`MintX509SVID refuses a CSR for [${uris.join(', ')}]`, async () => {
    await assert.rejects(mints.mintX509SVID({ csr: csrOf(key, uris) }), {
      code: 'invalid-argument',
    })
  })
}

test('MintX509SVID refuses a DNS name that a wildcard beside it covers', async () => {
  const names = ['*.example.org', 'a.example.org']
  const csr = csrOf(key, ['spiffe://example.org/any'], names)
  await assert.rejects(mints.mintX509SVID({ csr }), { code: 'invalid-argument', message: /a\.ex/ })
})

test('MintJWTSVID refuses what is no workload’s ID, and a negative TTL', async () => {
  for (const id of [
    { trustDomain: 'example.org', path: '' },
    { trustDomain: 'example.org', path: '/spire/server' },
    { trustDomain: 'other.org', path: '/a' },
  ]) {
    await assert.rejects(mints.mintJWTSVID({ id, audience: ['a'] }), { code: 'invalid-argument' })
  }
  const id = { trustDomain: 'example.org', path: '/a' }
  await assert.rejects(mints.mintJWTSVID({ id, audience: ['a'], ttl: -1 }), {
    code: 'invalid-argument',
  })
})

test('every issued serial is in the audit log', async () => {
  const { results } = await svids.batchNewX509SVID({
    params: [{ entryId: mine.id, csr: csrOf(key) }],
  })
  const { serialNumber } = leafOf(results[0]?.svid?.certChain)
  const record = live.audited().at(-1)
  assert.equal(record?.['action'], '/spire.api.server.svid.v1.SVID/BatchNewX509SVID')
  assert.equal(record?.['caller'], agent.id)
  assert.deepEqual(record?.['issued'], [`${mine.id} ${serialNumber}`])
})

test('NewDownstreamX509CA gives a downstream server a CA below ours, and the bundle', async () => {
  await live.createEntry({ parent: agent.id, path: '/below', more: { downstream: true } })
  const below = live.connect(await live.mint('/below')).client(SVIDDefinition)
  const csr = csrOf(key, ['spiffe://example.org'])
  const answer = await below.newDownstreamX509CA({ csr, preferredTtl: 600 })
  const ca = leafOf(answer.caCertChain)
  assert.deepEqual(ca.uris, ['spiffe://example.org'])
  assert.equal(ca.basicConstraints?.isCa, true)
  assert.equal(ca.publicKey.toHex(), key.publicKey.toHex())
  assert.equal(ca.notAfterSeconds - ca.notBeforeSeconds, 610)
  const authorities = answer.x509Authorities.map((der) => parseCertificate(der))
  const [above] = authorities.filter(
    ({ subjectKeyId }) => subjectKeyId?.toHex() === ca.authorityKeyId?.toHex(),
  )
  assert.ok(above, 'the authority that signed it is in the bundle')
  const record = live
    .audited()
    .findLast(({ action }) => String(action).endsWith('NewDownstreamX509CA'))
  assert.match(JSON.stringify(record), /"serialNumber":"\d+".*spiffe:\/\/example\.org\/below/)

  const { results } = await live.local.client(EntryDefinition).batchDeleteEntry({
    ids: (await live.local.client(EntryDefinition).listEntries({})).entries
      .filter(({ downstream }) => downstream)
      .map(({ id }) => id),
  })
  assert.equal(results.length, 1)
  await assert.rejects(below.newDownstreamX509CA({ csr }), { code: 'permission-denied' })
})

for (const [who, connection] of [
  ['an agent', () => agent.connection],
  ['an operator', () => live.local],
  ['nobody', () => live.connect()],
] as const) {
  test(`NewDownstreamX509CA gives ${who} no CA`, async () => {
    const client = connection().client(SVIDDefinition)
    await assert.rejects(client.newDownstreamX509CA({ csr: csrOf(key) }), {
      code: 'permission-denied',
    })
  })
}

test('NewDownstreamX509CA gives a workload without a downstream entry no CA', async () => {
  const workload = live.connect(await live.mint('/mine')).client(SVIDDefinition)
  await assert.rejects(workload.newDownstreamX509CA({ csr: csrOf(key) }), {
    code: 'permission-denied',
  })
})

test('NewDownstreamX509CA refuses a request without a key, or whose sender does not have it', async () => {
  await live.createEntry({ parent: agent.id, path: '/below', more: { downstream: true } })
  const below = live.connect(await live.mint('/below')).client(SVIDDefinition)
  for (const request of [
    {},
    { csr: tampered },
    { csr: Uint8Array.of(1) },
    { csr: csrOf(key), preferredTtl: -1 },
  ]) {
    await assert.rejects(below.newDownstreamX509CA(request), { code: 'invalid-argument' })
  }
})

test('the authority above a downstream CA is not retired before that CA ends', async () => {
  const below = live.connect(await live.mint('/below')).client(SVIDDefinition)
  await below.newDownstreamX509CA({ csr: csrOf(key) })
  const stop = new AbortController()
  const rotating = live.local
    .client(KeysDefinition)
    .rotate({ kind: 'x509', retire: true, afterSeconds: 0 }, { signal: stop.signal })
  for await (const { step, detail } of rotating) {
    assert.notEqual(step, 'revoked')
    if (step !== 'replacing' || !/downstream/.test(detail)) continue
    stop.abort()
    break
  }
})
