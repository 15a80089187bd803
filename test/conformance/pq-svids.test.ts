// An entry that asks for post-quantum SVIDs, before clients that know nothing of them: each gets its classical ones, as
// ever. And a JOSE library of others verifies the post-quantum tokens.
import assert from 'node:assert/strict'
import process from 'node:process'
import { after, before, test } from 'node:test'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { SystemClock } from '#base/clock.ts'
import { WorkloadApi } from '#workload-client/workload-api.ts'
import { Installation } from '../support/installation.ts'
import { expectEvent, goClient, pythonClient, run } from './clients.ts'

const uid = process.getuid?.() ?? 0
const assay = new Installation()
after(() => assay[Symbol.asyncDispose]())
const go = goClient()
const python = pythonClient()

before(async () => {
  await assay.startServer('memory', 'pq_signatures: hybrid\n')
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  await assay.startAgent(`join_token: { token: ${token} }`)
  const [node] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  for (const [path, hint] of [
    ['/web', 'pq'],
    ['/db', 'pq:db'],
    ['/plain', 'other'],
  ] as const) {
    await assay.createEntry(node?.id ?? '', assay.id(path), `unix:uid:${uid}`, '--hint', hint)
  }
})

interface Seen {
  readonly id: string
  readonly hint?: string
}

const ids = (svids: unknown): readonly string[] =>
  (svids as readonly Seen[]).map(({ id }) => id).sort()
const all = ['/db', '/plain', '/web'].map((path) => assay.id(path))

test('go-spiffe gets exactly the classical SVIDs of entries that ask for post-quantum ones', {
  skip: go.missing ?? false,
}, async () => {
  const seen = await expectEvent(run(go, ['x509', assay.workloadSocket]), 'x509')
  assert.deepEqual(ids(seen['svids']), all)
  assert.deepEqual(seen['roots'], { [assay.trustDomain]: 1 })
  // It refuses a whole JWT bundle for one key that it does not know.
  const jwt = await expectEvent(run(go, ['jwt', assay.workloadSocket, 'db']), 'jwt')
  assert.ok(all.includes(String(jwt['id'])))
})

test('py-spiffe gets its default SVID as ever', {
  skip: python.missing ?? false,
}, async () => {
  const seen = await expectEvent(run(python, ['x509', assay.workloadSocket]), 'x509')
  const [id = ''] = ids(seen['svids'])
  assert.ok(all.includes(id))
})

test('both entries give post-quantum SVIDs, and jose verifies their tokens by the post-quantum bundle (RFC 9964)', async () => {
  const signal = AbortSignal.timeout(20_000)
  using api = new WorkloadApi(`unix://${assay.workloadSocket}`, new SystemClock(), {
    kind: 'post-quantum',
  })
  const { svids } = await api.x509Context(signal)
  assert.deepEqual(svids.map(({ spiffeId, hint }) => [spiffeId, hint]).sort(), [
    [assay.id('/db'), 'pq:db'],
    [assay.id('/web'), 'pq'],
  ])
  const [token] = await api.jwtSvids(['db'], { spiffeId: assay.id('/web'), signal })
  const [jwks = ''] = (await api.jwtBundles(signal)).values()
  const { payload, protectedHeader } = await jwtVerify(
    token?.token ?? '',
    createLocalJWKSet(JSON.parse(jwks)),
    { audience: 'db' },
  )
  assert.equal(protectedHeader.alg, 'ML-DSA-44')
  assert.equal(payload.sub, assay.id('/web'))
})
