// What a server refuses an agent that asks for post-quantum SVIDs.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { generateMlDsaKeyPair } from '#pq-crypto/ml-dsa.ts'
import { createMlDsaCsr } from '#pq-crypto/ml-dsa-certificate.ts'
import { PostQuantumDefinition } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { csrOf, LiveServer } from '../support/live-server.ts'

const live = await LiveServer.start({
  settings: 'ratelimit: { attestation: false }\npq_signatures: hybrid',
})
after(() => live[Symbol.asyncDispose]())
const agent = await live.attest()
const other = await live.attest()
const pq = agent.connection.client(PostQuantumDefinition)
const asking = await live.createEntry({
  parent: agent.id,
  path: '/asking',
  more: { hint: 'pq:one', dnsNames: ['one.example.org'], x509SvidTtl: 600 },
})
const plain = await live.createEntry({ parent: agent.id, path: '/plain', more: { hint: 'pqx' } })
const theirs = await live.createEntry({ parent: other.id, path: '/theirs', more: { hint: 'pq' } })
const key = await generateMlDsaKeyPair('ml-dsa-44')
const csr = createMlDsaCsr(key)
const codes = { ok: 0, invalidArgument: 3, notFound: 5, failedPrecondition: 9 }

test('PostQuantum signs what the entry says, for the ML-DSA key of the request', async () => {
  const { results } = await pq.batchNewX509SVID({ params: [{ entryId: asking.id, csr }] })
  const [result] = results
  assert.equal(result?.status?.code, codes.ok)
  const leaf = parseCertificate(result.svid?.certChain[0] ?? new Uint8Array())
  assert.deepEqual(leaf.uris, ['spiffe://example.org/asking'])
  assert.deepEqual(leaf.dnsNames, ['one.example.org'])
  assert.equal(leaf.publicKey.toHex(), key.publicKey.toHex())
  assert.equal(leaf.notAfterSeconds - leaf.notBeforeSeconds, 610)
  const { svid } = await pq.newJWTSVID({ entryId: asking.id, audience: ['db'] })
  assert.equal(svid?.hint, 'pq:one')
})

const tampered = csr.slice()
tampered[tampered.length - 1] = (tampered.at(-1) ?? 0) ^ 1
// A key whose owner has signed nothing: the request of one key, with another put in its place.
const stolen = csr.slice()
stolen.set((await generateMlDsaKeyPair('ml-dsa-44')).publicKey, indexOf(csr, key.publicKey))

function indexOf(bytes: Uint8Array, part: Uint8Array): number {
  const at = Buffer.from(bytes).indexOf(part)
  assert.ok(at > 0)
  return at
}

for (const [what, params, code] of [
  ['an entry that does not ask for it', { entryId: plain.id, csr }, codes.failedPrecondition],
  ['an entry of another agent', { entryId: theirs.id, csr }, codes.notFound],
  ['no CSR', { entryId: asking.id }, codes.invalidArgument],
  ['a CSR of noise', { entryId: asking.id, csr: Uint8Array.of(1, 2, 3) }, codes.invalidArgument],
  [
    'a CSR whose signature is changed',
    { entryId: asking.id, csr: tampered },
    codes.invalidArgument,
  ],
  [
    'a CSR for the key of somebody else',
    { entryId: asking.id, csr: stolen },
    codes.invalidArgument,
  ],
  [
    'a CSR for a classical key',
    { entryId: asking.id, csr: csrOf(generateEcKeyPair('ec-p256')) },
    codes.invalidArgument,
  ],
] as const) {
  test(`PostQuantum refuses ${what}`, async () => {
    const { results } = await pq.batchNewX509SVID({ params: [params] })
    assert.equal(results[0]?.status?.code, code)
    assert.equal(results[0]?.svid, undefined)
  })
}

test('PostQuantum refuses tokens of entries that do not ask for them, and of other agents', async () => {
  await assert.rejects(pq.newJWTSVID({ entryId: plain.id, audience: ['db'] }), {
    code: 'failed-precondition',
  })
  await assert.rejects(pq.newJWTSVID({ entryId: theirs.id, audience: ['db'] }), {
    code: 'not-found',
  })
})

test('the SVID service signs no ML-DSA key, whatever the hint', async () => {
  const { results } = await agent.connection
    .client(SVIDDefinition)
    .batchNewX509SVID({ params: [{ entryId: asking.id, csr }] })
  assert.equal(results[0]?.status?.code, codes.invalidArgument)
})
