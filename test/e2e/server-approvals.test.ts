import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { AssayError } from '#base/errors.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { ApprovalsDefinition } from '#rpc/gen/assay/server/v1/approvals.ts'
import { InventoryDefinition, State } from '#rpc/gen/assay/server/v1/inventory.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import type { TlsIdentity } from '#rpc/tls.ts'
import { csrOf, LiveServer } from '../support/live-server.ts'
import { newTpmNode } from '../support/records.ts'

const names = ['alice', 'bob', 'entries', 'narrow', 'keys', 'mixed']
const directory = await mkdtemp(join(tmpdir(), 'assay-approvals-'))
after(() => rm(directory, { recursive: true }))

// To mint for who has rights needs two, so these are from before.
const identities = new Map<string, TlsIdentity>()
{
  await using before = await LiveServer.start({ directory })
  for (const name of names) identities.set(name, await before.mint(`/ops/${name}`))
}

const live = await LiveServer.start({
  directory,
  settings: `
ratelimit: { attestation: false }
administrators:
  - { spiffe_id: 'spiffe://example.org/ops/entries', calls: [read, entries] }
  - { spiffe_id: 'spiffe://example.org/ops/narrow', spiffe_id_prefixes: ['spiffe://example.org/web'] }
  - { spiffe_id: 'spiffe://example.org/ops/keys', calls: [authorities] }
  - { spiffe_id: 'spiffe://example.org/ops/mixed', calls: [read] }
  - { spiffe_id: 'spiffe://example.org/ops/mixed', spiffe_id_prefixes: ['spiffe://example.org/web'] }
admin_ids: ['spiffe://example.org/ops/alice', 'spiffe://example.org/ops/bob']
approvals: { authorities: 2, inventory: 2 }
`,
})
after(() => live[Symbol.asyncDispose]())

function as(name: string) {
  const connection = live.connect(identities.get(name))
  return {
    approvals: connection.client(ApprovalsDefinition),
    authority: connection.client(LocalAuthorityDefinition),
    inventory: connection.client(InventoryDefinition),
    keys: connection.client(KeysDefinition),
    entries: connection.client(EntryDefinition),
    agents: connection.client(AgentDefinition),
    bundles: connection.client(BundleDefinition),
    svids: connection.client(SVIDDefinition),
  }
}
const alice = as('alice')
const bob = as('bob')

/** The request's id, of a call that must wait for approval. */
async function waits(call: Promise<unknown>): Promise<string> {
  let id = ''
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof AssayError)
    assert.equal(error.reason, 'approval-required', error.message)
    assert.equal(error.code, 'failed-precondition')
    assert.match(
      error.message,
      /^cannot .+ yet: one more administrator must agree to request [0-9a-f]{8},/,
    )
    id = /'assay approval approve ([0-9a-f]{8})'/.exec(error.message)?.[1] ?? ''
    return true
  })
  return id
}

test('trying the PIN again is one person’s: it changes no authority', async () => {
  await assert.rejects(alice.keys.resume({}), { reason: 'nothing-to-resume' })
  await waits(alice.keys.acceptClock({}))
})

test('a call waits until another administrator agrees, and goes through once', async () => {
  const before = await alice.authority.getX509AuthorityState({})
  const id = await waits(alice.authority.prepareX509Authority({}))
  assert.equal(await waits(alice.authority.prepareX509Authority({})), id)
  const unchanged = await alice.authority.getX509AuthorityState({})
  assert.deepEqual(unchanged, before)

  await assert.rejects(alice.approvals.approve({ id }), { reason: 'approval-own' })
  // Somebody else’s is somebody else’s, also when it is the same.
  const own = await waits(bob.authority.prepareX509Authority({}))
  assert.notEqual(own, id)
  await bob.approvals.deny({ id: own })

  const approved = await bob.approvals.approve({ id })
  assert.equal(approved.what, 'prepare a new X.509 authority')
  assert.deepEqual([approved.state, approved.missing], ['approved', 0])
  await waits(bob.authority.prepareX509Authority({}))
  await waits(alice.authority.prepareJWTAuthority({}))
  const { preparedAuthority } = await alice.authority.prepareX509Authority({})
  assert.notEqual(await waits(alice.authority.prepareX509Authority({})), id)
  // The same method with another request is another request.
  const authorityId = preparedAuthority?.authorityId ?? ''
  const activating = await waits(alice.authority.activateX509Authority({ authorityId }))
  await bob.approvals.approve({ id: activating })
  await waits(alice.authority.activateX509Authority({ authorityId: 'another' }))
  await alice.authority.activateX509Authority({ authorityId })

  const records = live.audited()
  const of = (method: string, more: object) =>
    records.some((record) => {
      return (
        String(record['action']).endsWith(method) &&
        Object.entries(more).every(([field, value]) => {
          return JSON.stringify(record[field]) === JSON.stringify(value)
        })
      )
    })
  const aliceId = 'spiffe://example.org/ops/alice'
  const bobId = 'spiffe://example.org/ops/bob'
  const asked = 'prepare a new X.509 authority'
  const method = 'PrepareX509Authority'
  assert.ok(of(method, { caller: aliceId, result: 'refused', reason: 'approval-required', asked }))
  assert.ok(
    of('Approvals/Approve', { caller: bobId, subject: id, requester: aliceId, what: asked }),
  )
  assert.ok(of('Approvals/Approve', { caller: aliceId, reason: 'approval-own', subject: id }))
  assert.ok(of('Approvals/Deny', { caller: bobId, subject: own, result: 'allowed' }))
  assert.ok(of(method, { caller: aliceId, result: 'allowed', approval: id, approvedBy: [bobId] }))
})

test('who could not make a call neither sees it nor agrees to it', async () => {
  const id = await waits(alice.authority.prepareJWTAuthority({}))
  for (const name of ['entries', 'narrow', 'mixed']) {
    const reason = name === 'narrow' ? 'cannot-be-narrowed' : 'approval-not-found'
    for (const call of ['get', 'approve', 'deny'] as const) {
      await assert.rejects(as(name).approvals[call]({ id }), { reason }, `${name} ${call}`)
    }
  }
  assert.deepEqual((await as('entries').approvals.list({})).approvals, [])
  const { approvals } = await as('keys').approvals.list({})
  assert.ok(approvals.some((one) => one.id === id))
  await as('keys').approvals.approve({ id })
  await alice.authority.prepareJWTAuthority({})
})

test('a denial is told to who asked', async () => {
  const id = await waits(alice.keys.acceptClock({}))
  await bob.approvals.deny({ id })
  await assert.rejects(alice.keys.acceptClock({}), {
    reason: 'approval-denied',
    message: /ops\/bob/,
  })
})

test('a TPM is allowed by two, and stopped by one', async () => {
  const endorsementKeyHash = 'a'.repeat(64)
  for (const state of [State.BANNED, State.DENIED]) {
    const renaming = { endorsementKeyHash, state, nodeName: 'renamed' }
    await alice.approvals.deny({ id: await waits(alice.inventory.setState(renaming)) })
    await alice.inventory.setState({ endorsementKeyHash, state })
  }
  assert.equal((await live.datastore.inventoryRecord(endorsementKeyHash))?.nodeName, '')
  const prefix = { endorsementKeyHash: 'a'.repeat(8) }
  const isPart = { reason: 'approval-whole-hash' }
  await assert.rejects(alice.inventory.setState({ ...prefix, state: State.ALLOWED }), isPart)
  await assert.rejects(alice.inventory.delete(prefix), isPart)
  await alice.inventory.setState({ ...prefix, state: State.DENIED })
  await alice.inventory.import({ records: [{ endorsementKeyHash }], dryRun: true })
  await waits(alice.inventory.import({ records: [{ endorsementKeyHash }] }))
  await waits(alice.inventory.delete({ endorsementKeyHash }))
  const id = await waits(alice.inventory.setState({ endorsementKeyHash, state: State.ALLOWED }))
  assert.equal((await live.datastore.inventoryRecord(endorsementKeyHash))?.state, 'denied')
  await bob.approvals.approve({ id })
  await alice.inventory.setState({ endorsementKeyHash, state: State.ALLOWED })

  // Evicting a banned node would let its TPM in again.
  await live.datastore.putNode(newTpmNode(endorsementKeyHash))
  const agent = { trustDomain: 'example.org', path: `/spire/agent/tpm/${endorsementKeyHash}` }
  await alice.agents.banAgent({ id: agent })
  const evicting = await waits(alice.agents.deleteAgent({ id: agent }))
  await bob.approvals.approve({ id: evicting })
  await alice.agents.deleteAgent({ id: agent })
  assert.equal((await live.datastore.inventoryRecord(endorsementKeyHash))?.state, 'allowed')
})

test('nobody makes a second administrator of themselves', async () => {
  const parentId = { trustDomain: 'example.org', path: '/spire/agent/x' }
  const selectors = [{ type: 'unix', value: 'uid:666' }]
  const at = (path: string) => ({ trustDomain: 'example.org', path })
  const entry = (path: string, more: object) => ({
    spiffeId: at(path),
    parentId,
    selectors,
    ...more,
  })
  const { results } = await alice.entries.batchCreateEntry({ entries: [entry('/plain', {})] })
  const plain = results[0]?.entry?.id ?? ''
  await waits(
    alice.entries.batchCreateEntry({ entries: [entry('/x', {}), entry('/y', { admin: true })] }),
  )
  await waits(alice.entries.batchCreateEntry({ entries: [entry('/y', { downstream: true })] }))
  await waits(alice.entries.batchCreateEntry({ entries: [entry('/ops/bob', {})] }))
  await waits(
    alice.entries.batchUpdateEntry({
      entries: [{ id: plain, admin: true }],
      inputMask: { admin: true },
    }),
  )
  await waits(
    alice.entries.batchUpdateEntry({
      entries: [{ id: plain, spiffeId: at('/ops/bob') }],
      inputMask: { spiffeId: true },
    }),
  )
  const csr = csrOf(generateEcKeyPair('ec-p256'), ['spiffe://example.org/ops/bob'])
  await waits(alice.svids.mintX509SVID({ csr }))
  await waits(alice.svids.mintJWTSVID({ id: at('/ops/bob'), audience: ['a'] }))
  await waits(alice.agents.createJoinToken({ ttl: 60, token: 'known' }))
  const { x509Authorities } = await alice.bundles.getBundle({})
  const appending = await waits(alice.bundles.appendBundle({ x509Authorities }))
  await assert.rejects(as('keys').approvals.approve({ id: appending }), {
    reason: 'needs-all-rights',
  })
  await alice.svids.mintJWTSVID({ id: at('/plain'), audience: ['a'] })

  // Who has not all rights may not agree to it, and is not asked.
  const trustDomains = ['partners.org']
  await alice.bundles.batchSetFederatedBundle({ bundle: [{ trustDomain: 'partners.org' }] })
  const operator = entry('/z', { admin: true, parentId: at('/nodes'), federatesWith: trustDomains })
  const id = await waits(alice.entries.batchCreateEntry({ entries: [operator] }))
  await assert.rejects(as('entries').approvals.approve({ id }), { reason: 'needs-all-rights' })
  await bob.approvals.approve({ id })
  const made = await alice.entries.batchCreateEntry({ entries: [operator] })
  const admin = made.results[0]?.entry?.id ?? ''
  assert.notEqual(admin, '')
  await waits(
    alice.entries.batchUpdateEntry({
      entries: [{ id: admin, hint: 'x' }],
      inputMask: { hint: true },
    }),
  )
  await waits(alice.entries.batchDeleteEntry({ ids: [admin] }))
  // A node of hers that serves its parent would serve it too, and she would be two.
  const moved = { entries: [{ id: plain, spiffeId: at('/nodes') }], inputMask: { spiffeId: true } }
  for (const call of [
    () => alice.entries.batchCreateEntry({ entries: [entry('/nodes', {})] }),
    () => alice.entries.batchUpdateEntry(moved),
    () => alice.agents.createJoinToken({ ttl: 60, agentId: at('/nodes') }),
    () => alice.bundles.batchDeleteFederatedBundle({ trustDomains, mode: 2 }),
  ]) {
    await alice.approvals.deny({ id: await waits(call()) })
  }
})

test('one approval lets a rotation be carried on until it is done', async () => {
  const request = { kind: 'x509', afterSeconds: 3600 }
  const begin = async (more: object = {}): Promise<string> => {
    for await (const { step, predecessorId } of alice.keys.rotate({ ...request, ...more })) {
      if (step === 'propagating') return predecessorId
    }
    return ''
  }
  const id = await waits(begin())
  await bob.approvals.approve({ id })
  const predecessorId = await begin()
  assert.notEqual(predecessorId, '')
  const free = async (more: object): Promise<void> => {
    // The server hears of the end of a stream a moment after its client.
    for (;;) {
      try {
        await begin(more)
        return
      } catch (error) {
        if (!(error instanceof AssayError) || error.reason !== 'approval-in-use') throw error
      }
    }
  }
  await free({})
  await free({ predecessorId })
  await waits(begin({ retire: true }))

  const jwt = async (): Promise<void> => {
    for await (const _ of alice.keys.rotate({ kind: 'jwt', force: true }));
  }
  await bob.approvals.approve({ id: await waits(jwt()) })
  await jwt()
  await waits(jwt())
})

test('assay approval lists, shows, approves and denies', async () => {
  const run = promisify(execFile)
  const assay = async (...args: string[]) => {
    const socket = ['--socket-path', join(live.directory, 'server.sock')]
    return run('bin/assay', ['approval', ...args, ...socket])
  }
  const id = await waits(alice.authority.prepareX509Authority({}))
  const listed = JSON.parse((await assay('list', '--json')).stdout)
  assert.ok(listed.some((one: { id: string }) => one.id === id))
  assert.match(
    (await assay('list')).stdout,
    new RegExp(`${id} +pending +spiffe://example.org/ops/alice`),
  )
  const shown = (await assay('show', id)).stdout
  assert.match(shown, /^What +prepare a new X\.509 authority$/m)
  assert.match(shown, /^Gives rights +no$/m)
  assert.match(shown, /^Still missing +1$/m)
  const { stdout, stderr } = await assay('approve', id.toUpperCase())
  assert.equal(stdout, `agreed to ${id}: prepare a new X.509 authority\n`)
  assert.match(stderr, /ops\/alice can now run the command once more/)
  const other = await waits(alice.keys.acceptClock({}))
  assert.equal(
    (await assay('deny', other)).stdout,
    `denied ${other}: take the server's clock for right\n`,
  )
  await assert.rejects(assay('show', 'none'), /no request "none" that is yours to see/)
  await assert.rejects(assay('approve'), /needs an ID/)
})

test('calls that wait are counted', async () => {
  const metrics = await (await fetch(`http://127.0.0.1:${live.server.metricsPort}/metrics`)).text()
  assert.match(metrics, /^assay_approvals_pending [1-9]\d*$/m)
})
