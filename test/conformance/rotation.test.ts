// Keys are rotated all the time under unmodified go-spiffe workloads at two agents, which must not notice. The whole
// figure is ASSAY_ROTATIONS=100; a few rotations show the same faults, if there are any.
import assert from 'node:assert/strict'
import process from 'node:process'
import { test } from 'node:test'
import { Installation } from '../support/installation.ts'
import { expectEvent, goClient, run } from './clients.ts'

const rotations = Number(process.env['ASSAY_ROTATIONS'] ?? 3)
const go = goClient()
const uid = process.getuid?.() ?? 0

const settings = `replacement_spread: 1s
ratelimit: { attestation: false }
`

async function startNode(assay: Installation, node: string): Promise<string> {
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  await assay.startAgent(`join_token: { token: ${token} }`, { node })
  const id = assay.id(`/spire/agent/join_token/${token}`)
  const lifetimes = ['--x509-svid-ttl', '60s', '--jwt-svid-ttl', '2s']
  await assay.createEntry(id, assay.id(`/${node}`), `unix:uid:${uid}`, ...lifetimes)
  return id
}

interface Key {
  readonly purpose: string
  readonly authority_id: string
  readonly state: string
}

test(`${rotations} rotations, from preparation to destruction, break no handshake and no validation`, {
  skip: go.missing ?? false,
}, async () => {
  await using assay = new Installation()
  await assay.makeToken()
  await assay.startServer('pkcs11', settings)
  for (const node of ['one', 'two']) await startNode(assay, node)
  const stop = new AbortController()
  const sockets = ['one', 'two'].map((node) => assay.workloadSocketOf(node))
  const workloads = run(go, ['load', ...sockets, assay.trustDomain], { signal: stop.signal })
  await expectEvent(workloads, 'running')
  const told = Array.fromAsync(workloads)
  const seen = { x509: new Set<string>(), jwt: new Set<string>() }
  try {
    for (let i = 0; i < rotations; i++) {
      const rotate = (kind: 'x509' | 'jwt') =>
        assay.assay('hsm', 'rotate', kind, '--retire', ...assay.atServer())
      await Promise.all([rotate('x509'), rotate('jwt')])
      const { keys } = (await assay.ask('hsm', 'status')) as { keys: readonly Key[] }
      assert.deepEqual(
        keys.map(({ purpose, state }) => `${purpose} ${state}`),
        ['x509-ca active', 'jwt active'],
        'nothing is left of the predecessors, in the token or in the bundle',
      )
      for (const { purpose, authority_id } of keys) {
        seen[purpose === 'jwt' ? 'jwt' : 'x509'].add(authority_id)
      }
    }
  } finally {
    stop.abort()
  }
  const events = await told
  assert.deepEqual(
    events.filter(({ event }) => event !== 'summary'),
    [],
  )
  const { handshakes, validations, updates } = events.at(-1) ?? { event: '' }
  assert.deepEqual([seen.x509.size, seen.jwt.size], [rotations, rotations], 'each has a new key')
  assert.ok(Number(handshakes) > 50 * rotations, `${handshakes} handshakes`)
  assert.ok(Number(validations) > 50 * rotations, `${validations} validations`)
  assert.ok(Number(updates) >= 2 * rotations, `${updates} updates`)
})
