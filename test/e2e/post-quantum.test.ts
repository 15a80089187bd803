// What holds out against a quantum computer, on real sockets: the key agreement of agent and server, by group and by
// profile, and the second signature of certificates.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { describePublicKey } from '#pki/public-key.ts'
import { ActivityDefinition } from '#rpc/gen/assay/server/v1/activity.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { OverviewDefinition } from '#rpc/gen/assay/server/v1/overview.ts'
import type { X509SVIDResponse } from '#rpc/gen/spiffe/workload/workload.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { verifyHybridX509Svid } from '#spiffe/hybrid-x509-svid.ts'
import {
  bundleThatCameWith,
  eventually,
  LiveAgent,
  workloadHeader as metadata,
  ownSelector,
  Taken,
} from '../support/live-agent.ts'
import { LiveServer, trustDomain } from '../support/live-server.ts'
import { TcpGate } from '../support/tcp-gate.ts'

const settings = 'ratelimit: { attestation: false }'

/** One metric of the server, as Prometheus reads it. */
async function metric(server: LiveServer, name: string): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${server.server.metricsPort}/metrics`)
  const lines = (await answer.text()).split('\n').filter((line) => line.startsWith(name))
  return lines.join('\n')
}

const curveOf = (der: Uint8Array): string => {
  const key = describePublicKey(parseCertificate(der).publicKey)
  return key.type === 'ec' ? key.curve : key.type
}

test('agent and server agree on keys with X25519MLKEM768, and the server counts connections by group', async () => {
  await using server = await LiveServer.start({ settings })
  await using agent = await LiveAgent.start(server)
  await agent.ready()
  const counted = await metric(server, 'assay_tls_connections_total')
  assert.match(counted, /^assay_tls_connections_total\{group="X25519MLKEM768"\} [1-9]\d*$/)
})

test('with the crypto_profile cnsa2 every key is P-384 and every connection SecP384r1MLKEM1024', async () => {
  await using server = await LiveServer.start({ settings: `${settings}\ncrypto_profile: cnsa2` })
  await using agent = await LiveAgent.start(server, { settings: 'crypto_profile: cnsa2' })
  const parent = await agent.ready()
  await server.createEntry({
    parent,
    path: '/web',
    selectors: [ownSelector],
  })
  await agent.ready(1)
  using taken = new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))
  const { svids } = await taken.next()
  const [svid] = svids
  assert.ok(svid?.spiffeId === `spiffe://${trustDomain}/web`)
  assert.equal(curveOf(svid.x509Svid), 'P-384')
  assert.equal(curveOf(svid.bundle), 'P-384')
  const counted = await metric(server, 'assay_tls_connections_total')
  assert.match(counted, /^assay_tls_connections_total\{group="SecP384r1MLKEM1024"\} [1-9]\d*$/)
})

/** Starts a workload's stream of an agent that serves it one identity. */
async function served(server: LiveServer, agent: LiveAgent): Promise<Taken<X509SVIDResponse>> {
  const parent = await agent.ready()
  await server.createEntry({ parent, path: '/web', selectors: [ownSelector] })
  await agent.ready(1)
  return new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))
}

/** What a workload finds in what it is given. */
function judge({ svids }: X509SVIDResponse): string {
  const [svid] = svids
  assert.ok(svid)
  const bundle = bundleThatCameWith(svid)
  const { pq, parameterSet } = verifyHybridX509Svid({
    certificates: splitCertificates(svid.x509Svid),
    bundles: () => bundle,
    nowSeconds: Math.floor(Temporal.Now.instant().epochMilliseconds / 1000),
    policy: 'prefer',
  })
  return parameterSet === undefined ? pq : `${pq} ${parameterSet}`
}

test('with pq_signatures a workload gets what its verifier finds signed twice, and hsm status tells where the keys are', async () => {
  await using server = await LiveServer.start({ settings: `${settings}\npq_signatures: hybrid` })
  await using agent = await LiveAgent.start(server)
  using taken = await served(server, agent)
  const answer = await taken.next()
  assert.equal(judge(answer), 'verified ml-dsa-44')
  assert.ok((answer.svids[0]?.x509Svid.length ?? 0) <= 3000)
  const { pqWhere, keys } = await server.local.client(KeysDefinition).getStatus({})
  assert.equal(pqWhere, 'memory')
  assert.deepEqual(
    keys.map(({ purpose, pqParameterSet }) => [purpose, pqParameterSet]),
    [
      ['x509-ca', 'ml-dsa-44'],
      ['jwt', 'ml-dsa-44'],
    ],
  )
})

test('with pq_policy require agent and server accept each other when both are signed twice, and count it', async () => {
  const lines = `${settings}\npq_signatures: hybrid\npq_policy: require`
  await using server = await LiveServer.start({ settings: lines })
  await using agent = await LiveAgent.start(server, { settings: 'pq_policy: require' })
  await agent.ready()
  const counted = await metric(server, 'assay_peers_verified_total')
  assert.match(counted, /^assay_peers_verified_total\{pq="verified"\} [1-9]\d*$/)
  const pq = await eventually(async () => {
    const overview = await server.local.client(OverviewDefinition).get({})
    return overview.pq?.svids === 1 ? overview.pq : undefined
  }, 'the report of the agent')
  assert.deepEqual(pq, {
    parameterSet: 'ml-dsa-44',
    nodes: 1,
    verifiedNodes: 1,
    hybridConnections: 1,
    svids: 1,
    hybridSvids: 1,
  })
  const migration = await metric(server, 'assay_pq_migration')
  assert.match(migration, /^assay_pq_migration\{what="svids",state="hybrid"\} 1$/m)
  assert.match(migration, /^assay_pq_migration\{what="nodes",state="classical"\} 0$/m)
  const updates = server.local.client(ActivityDefinition).watchNodes({})
  const { value } = await updates[Symbol.asyncIterator]().next()
  assert.equal(value?.nodes[0]?.pq, 'verified')
  assert.equal(value.nodes[0].keyAgreement, 'X25519MLKEM768')
  const status = await agent.status()
  assert.deepEqual(
    [status.keyAgreement, status.serverPq, status.agentSvidPq],
    ['X25519MLKEM768', 'verified', 'ml-dsa-44'],
  )
})

test('with pq_policy require an agent turns away from a server that is signed once, and says why', async () => {
  await using server = await LiveServer.start({ settings })
  await using agent = await LiveAgent.start(server, { settings: 'pq_policy: require' })
  await eventually(
    () => agent.lines.find((line) => line.includes('pq-signature-absent')),
    'the refusal in the log',
  )
})

test('with the crypto_profile cnsa2 the second signature is ML-DSA-87', async () => {
  await using server = await LiveServer.start({
    settings: `${settings}\ncrypto_profile: cnsa2\npq_signatures: hybrid`,
  })
  await using agent = await LiveAgent.start(server, { settings: 'crypto_profile: cnsa2' })
  using taken = await served(server, agent)
  assert.equal(judge(await taken.next()), 'verified ml-dsa-87')
})

test('a restart switches to post-quantum signatures and back while agent and workload go on', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'assay-pq-'))
  using _kept = { [Symbol.dispose]: () => rmSync(directory, { recursive: true }) }
  const start = (lines: string) =>
    LiveServer.start({ directory, settings: `${settings}\n${lines}` })
  const first = await start('')
  await using gate = await TcpGate.to(first.server.port ?? 0)
  await using agent = await LiveAgent.start(first, { port: gate.port })
  using taken = await served(first, agent)
  assert.equal(judge(await taken.next()), 'absent')
  await first[Symbol.asyncDispose]()
  const switched = async (lines: string, expected: string): Promise<void> => {
    await using server = await start(lines)
    gate.redirect(server.server.port ?? 0)
    const authority = server.local.client(LocalAuthorityDefinition)
    const { active, prepared } = await authority.getX509AuthorityState({})
    assert.ok(active && prepared, 'the first round has made a successor')
    await agent.ready(1)
    // As its time would, and without the minute that agents have for the new authority.
    await authority.activateX509Authority({ authorityId: prepared.authorityId })
    await authority.taintX509Authority({ authorityId: active.authorityId })
    let found = ''
    while (found !== expected) found = judge(await taken.next())
  }
  await switched('pq_signatures: hybrid', 'verified ml-dsa-44')
  await switched('pq_signatures: hybrid\npq_parameter_set: ml-dsa-65', 'verified ml-dsa-65')
  await switched('', 'absent')
})

test('an agent of the default profile is served by a server of cnsa2, and the reverse', async () => {
  for (const [ofServer, ofAgent] of [
    ['cnsa2', 'default'],
    ['default', 'cnsa2'],
  ]) {
    await using server = await LiveServer.start({
      settings: `${settings}\ncrypto_profile: ${ofServer}`,
    })
    await using agent = await LiveAgent.start(server, { settings: `crypto_profile: ${ofAgent}` })
    await agent.ready()
    assert.match(await metric(server, 'assay_tls_connections'), /"SecP384r1MLKEM1024"/)
  }
})
