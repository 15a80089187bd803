// What holds out against a quantum computer, on real sockets: the key agreement of agent and server, by group and by
// profile.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import { describePublicKey } from '#pki/public-key.ts'
import { LiveAgent, workloadHeader as metadata, ownSelector, Taken } from '../support/live-agent.ts'
import { LiveServer, trustDomain } from '../support/live-server.ts'

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
