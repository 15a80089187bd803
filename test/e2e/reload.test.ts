// What a server and an agent take over of their configuration while they run.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { DiagnosisDefinition } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { FeedDefinition } from '#rpc/gen/assay/server/v1/feed.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { parseCalls } from '../../src/server/administrators/calls.ts'
import { LiveAgent, workloadHeader as metadata, ownSelector, Taken } from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'

const server = await LiveServer.start({ settings: 'ratelimit: { attestation: false }' })
after(() => server[Symbol.asyncDispose]())
const agent = await LiveAgent.start(server)
after(() => agent[Symbol.asyncDispose]())
const parent = await agent.ready()

test('Server.reload() changes lifetimes, limits and spread, and names what needs a restart', async () => {
  const { config } = server
  const node = await server.attest()
  const sign = () =>
    node.connection.client(SVIDDefinition).batchNewX509SVID({
      params: Array.from({ length: 501 }, () => ({ entryId: 'none', csr: new Uint8Array() })),
    })
  await assert.rejects(sign(), { reason: 'rate-limit-burst' })
  const restart = await server.server.reload({
    ...config,
    default_x509_svid_ttl: 600,
    replacement_spread: 7,
    ratelimit: { attestation: false, signing: false },
    bind_port: 1,
    approvals: { ...config.approvals, nodes: 2 },
  })
  assert.deepEqual(restart, ['bind_port', 'approvals'])
  assert.equal((await sign()).results.length, 501)
  using feed = new Taken((signal) =>
    node.connection
      .client(FeedDefinition)
      .watch({ agentVersion: '', bundleSequenceNumber: 0n }, { signal }),
  )
  assert.equal((await feed.next()).replacementSpreadSeconds, 7)
  await server.createEntry({ parent, path: '/web', selectors: [ownSelector] })
  await agent.ready(1)
  using stream = new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))
  const { svids } = await stream.next()
  const [leaf] = splitCertificates(svids[0]?.x509Svid ?? new Uint8Array())
  assert.ok(leaf !== undefined)
  const left = parseCertificate(leaf).notAfterSeconds - Date.now() / 1000
  assert.ok(left > 500 && left <= 600, `${left} s`)
  assert.deepEqual(await server.server.reload(config), [], 'it is compared with the start')
})

test('Server.reload() makes administrators and takes their rights away, on connections that are open', async () => {
  const { config } = server
  const node = await server.attest()
  const count = () => node.connection.client(EntryDefinition).countEntries({})
  await assert.rejects(count(), { code: 'permission-denied' })
  assert.deepEqual(await server.server.reload({ ...config, admin_ids: [node.id] }), [])
  assert.ok((await count()).count >= 0)
  const row = {
    unix_user: undefined,
    unix_group: undefined,
    spiffe_id: node.id,
    calls: parseCalls(['inventory']),
    spiffe_id_prefixes: undefined,
  }
  await server.server.reload({ ...config, admin_ids: [node.id], administrators: [row] })
  await assert.rejects(count(), { code: 'permission-denied' })
  const nobody = { ...row, unix_user: 'no-such-user-here', spiffe_id: undefined }
  await server.server.reload({ ...config, administrators: [nobody] })
  assert.match(server.lines.at(-1) ?? '', /no-such-user-here.*does not know/)
  await server.server.reload(config)
  await assert.rejects(count(), { code: 'permission-denied' })
})

test('Agent.reload() changes how processes are told apart, and names what needs a restart', async () => {
  const { config } = agent
  const programs = async (): Promise<boolean> => {
    const subject = { $case: 'pid', value: process.pid } as const
    const { selectors } = await agent.adminConnection
      .client(DiagnosisDefinition)
      .explain({ subject })
    return selectors.some((one) => one.startsWith('unix:path:'))
  }
  assert.equal(await programs(), false)
  const unix = { ...config.workload_attestors.unix, discover_workload_path: true }
  const restart = agent.agent.reload({
    ...config,
    workload_attestors: { unix },
    server_port: 1,
  })
  assert.deepEqual(restart, ['server_port'])
  assert.equal(await programs(), true)
})
