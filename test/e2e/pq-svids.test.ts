// SVIDs by ML-DSA alone, of entries that ask for them: fetched, verified, shown in a handshake by OpenSSL, rotated; and
// nothing of it where clients of the Workload API look.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createPrivateKey } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'node:test'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import { parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { encodePem, parsePem } from '#pki/pem.ts'
import { describePublicKey } from '#pki/public-key.ts'
import { parseMlDsaPublicKey } from '#pq-crypto/ml-dsa.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { OverviewDefinition } from '#rpc/gen/assay/server/v1/overview.ts'
import { PostQuantumDefinition as ServerPostQuantum } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import { PostQuantumDefinition } from '#rpc/gen/assay/workload/v1/post_quantum.ts'
import type { X509SVID, X509SVIDResponse } from '#rpc/gen/spiffe/workload/workload.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { verifyPqX509Svid } from '#spiffe/pq-svid.ts'
import {
  bundleThatCameWith,
  eventually,
  LiveAgent,
  workloadHeader as metadata,
  ownSelector,
  Taken,
} from '../support/live-agent.ts'
import { LiveServer, trustDomain } from '../support/live-server.ts'

const settings = 'ratelimit: { attestation: false }\npq_signatures: hybrid'
const web = `spiffe://${trustDomain}/web`

const isMlDsa = (der: Uint8Array): boolean =>
  describePublicKey(parseCertificate(der).publicKey).type === 'other'

function only({ svids }: X509SVIDResponse): X509SVID {
  assert.equal(svids.length, 1)
  const [svid] = svids
  assert.ok(svid)
  return svid
}

/** Verified as a peer would, with the post-quantum bundle that came with it. */
function verify(svid: X509SVID, from = svid) {
  const bundle = bundleThatCameWith(from)
  return verifyPqX509Svid({
    certificates: splitCertificates(svid.x509Svid),
    bundles: () => bundle,
    nowSeconds: Math.floor(Temporal.Now.instant().epochMilliseconds / 1000),
  })
}

/** A server and an agent with one entry that asks for post-quantum identities, and one that does not. */
async function start(more = '') {
  const server = await LiveServer.start({ settings: `${settings}\n${more}` })
  const agent = await LiveAgent.start(server)
  const parent = await agent.ready()
  const asking = await server.createEntry({
    parent,
    path: '/web',
    selectors: [ownSelector],
    more: { hint: 'pq' },
  })
  await server.createEntry({ parent, path: '/plain', selectors: [ownSelector] })
  await agent.ready(2)
  const pq = agent.workloadConnection.client(PostQuantumDefinition)
  return {
    server,
    agent,
    asking,
    pq,
    async [Symbol.asyncDispose]() {
      await agent[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
    },
  }
}

/** What the other end of a mutual TLS connection between the two was found to be, by OpenSSL. */
async function handshake(of: { server: X509SVID; client: X509SVID; roots: Uint8Array }) {
  const pem = (ders: Uint8Array): string =>
    splitCertificates(ders)
      .map((der) => encodePem('CERTIFICATE', der))
      .join('')
  const own = ({ x509Svid, x509SvidKey }: X509SVID) => ({
    cert: pem(x509Svid),
    key: encodePem('PRIVATE KEY', x509SvidKey),
    minVersion: 'TLSv1.3' as const,
  })
  const listening = createServer({
    ...own(of.server),
    ca: pem(of.server.bundle),
    requestCert: true,
    rejectUnauthorized: true,
  })
  listening.on('tlsClientError', () => {})
  listening.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  try {
    const socket: TLSSocket = connect({
      ...own(of.client),
      port: (listening.address() as AddressInfo).port,
      host: '127.0.0.1',
      ca: pem(of.roots),
      // The peer has no host name; its SPIFFE ID is looked at below.
      checkServerIdentity: () => undefined,
    })
    const [[accepted]] = await Promise.all([
      once(listening, 'secureConnection') as Promise<[TLSSocket]>,
      once(socket, 'secureConnect'),
    ])
    const found = [socket, accepted].map((end) => ({
      authorized: end.authorized,
      protocol: end.getProtocol(),
      peer: end.getPeerX509Certificate()?.subjectAltName,
      key: end.getPeerX509Certificate()?.publicKey.asymmetricKeyType,
    }))
    socket.destroy()
    accepted.destroy()
    return found
  } finally {
    listening.close()
  }
}

test('an entry with hint pq gives a post-quantum SVID over the call of its own, and the Workload API stays as it was', async () => {
  await using all = await start()
  const { agent, pq } = all
  using taken = new Taken((signal) => pq.fetchX509SVID({}, { metadata, signal }))
  const svid = only(await taken.next())
  assert.deepEqual([svid.spiffeId, svid.hint], [web, 'pq'])
  assert.equal(verify(svid).parameterSet, 'ml-dsa-44')
  assert.ok(splitCertificates(svid.bundle).every(isMlDsa))

  using classical = new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))
  const { svids } = await classical.next()
  assert.deepEqual(svids.map((one) => [one.spiffeId, one.hint]).sort(), [
    [`spiffe://${trustDomain}/plain`, ''],
    [web, 'pq'],
  ])
  for (const { x509Svid, bundle } of svids) {
    assert.ok(![...splitCertificates(x509Svid), ...splitCertificates(bundle)].some(isMlDsa))
  }
  using jwks = new Taken((signal) => agent.workload.fetchJWTBundles({}, { metadata, signal }))
  const [[, own] = []] = (await jwks.next()).bundles
  assert.doesNotMatch(new TextDecoder().decode(own), /"(AKP|ML-DSA-\d+)"/)
  const spire = await all.server.local.client(BundleDefinition).getBundle({})
  assert.ok(!spire.x509Authorities.some(({ asn1 }) => isMlDsa(asn1)))
  assert.ok(
    spire.jwtAuthorities.every(({ publicKey }) => describePublicKey(publicKey).type === 'ec'),
  )
})

test('OpenSSL proves both ends of a TLS 1.3 handshake with post-quantum SVIDs, and refuses those of others', async () => {
  await using all = await start()
  using taken = new Taken((signal) => all.pq.fetchX509SVID({}, { metadata, signal }))
  const svid = only(await taken.next())
  const end = { authorized: true, protocol: 'TLSv1.3', peer: `URI:${web}`, key: 'ml-dsa-44' }
  const found = await handshake({ server: svid, client: svid, roots: svid.bundle })
  assert.deepEqual(found, [end, end])
  using classical = new Taken((signal) =>
    all.agent.workload.fetchX509SVID({}, { metadata, signal }),
  )
  const [{ bundle } = svid] = (await classical.next()).svids
  await assert.rejects(handshake({ server: svid, client: svid, roots: bundle }), {
    code: 'SELF_SIGNED_CERT_IN_CHAIN',
  })
})

test('post-quantum JWT-SVIDs are of the entries that ask for them, and are validated over the same call', async () => {
  await using all = await start()
  const { pq, agent } = all
  const { svids } = await pq.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, { metadata })
  const [svid] = svids
  assert.ok(svid && svids.length === 1)
  assert.equal(svid.spiffeId, web)
  const [head = ''] = svid.svid.split('.')
  const header = new TextDecoder().decode(Uint8Array.fromBase64(head, { alphabet: 'base64url' }))
  assert.match(header, /"alg":"ML-DSA-44"/)
  const answer = await pq.validateJWTSVID({ audience: 'db', svid: svid.svid }, { metadata })
  assert.equal(answer.spiffeId, web)
  await assert.rejects(pq.validateJWTSVID({ audience: 'x', svid: svid.svid }, { metadata }), {
    code: 'invalid-argument',
  })
  await assert.rejects(
    agent.workload.validateJWTSVID({ audience: 'db', svid: svid.svid }, { metadata }),
    {
      code: 'invalid-argument',
    },
  )
  using taken = new Taken((signal) => pq.fetchJWTBundles({}, { metadata, signal }))
  const [[, jwks] = []] = (await taken.next()).bundles
  assert.match(new TextDecoder().decode(jwks), /"kty": "AKP"/)
  const classical = await agent.workload.fetchJWTSVID(
    { audience: ['db'], spiffeId: '' },
    { metadata },
  )
  assert.equal(classical.svids.length, 2)
})

test('whoever has no entry that asks gets none, and an entry that asks no more loses them at once', async () => {
  await using all = await start()
  const { server, pq, asking, agent } = all
  await assert.rejects(pq.fetchJWTSVID({ audience: ['db'], spiffeId: '' }), {
    code: 'invalid-argument',
  })
  using taken = new Taken((signal) => pq.fetchX509SVID({}, { metadata, signal }))
  only(await taken.next())
  const { results } = await server.local.client(EntryDefinition).batchUpdateEntry({
    entries: [{ ...asking, hint: '' }],
    inputMask: undefined,
    outputMask: undefined,
  })
  assert.equal(results[0]?.status?.code, 0)
  await assert.rejects(taken.next(), {
    code: 'permission-denied',
    message: /no entry of this process has the hint "pq"/,
  })
  using classical = new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))
  assert.equal((await classical.next()).svids.length, 2)
})

test('only agents are given post-quantum SVIDs, for entries that ask for them', async () => {
  await using all = await start()
  const { server, asking } = all
  const client = server.local.client(ServerPostQuantum)
  await assert.rejects(client.newJWTSVID({ entryId: asking.id, audience: ['db'] }), {
    code: 'permission-denied',
  })
  const { pq, bundle } = await client.getBundle({})
  assert.equal(pq?.x509.length, 1)
  assert.equal(pq.jwt.length, 1)
  assert.equal(bundle?.trustDomain, trustDomain)
})

test('a rotation that retires the authority waits for post-quantum SVIDs, and replaces them', async () => {
  await using all = await start('replacement_spread: 0s')
  const { server, pq } = all
  using taken = new Taken((signal) => pq.fetchX509SVID({}, { metadata, signal }))
  const first = only(await taken.next())
  await eventually(async () => {
    const overview = await server.local.client(OverviewDefinition).get({})
    // The agent's own, two classical ones, and the post-quantum one.
    return overview.pq?.svids === 4 ? true : undefined
  }, 'the report of all SVIDs')
  const steps: string[] = []
  const rotation = server.local
    .client(KeysDefinition)
    .rotate({ kind: 'x509', retire: true, force: false, predecessorId: '' })
  for await (const { step } of rotation) steps.push(step)
  assert.equal(steps.at(-1), 'done')
  let last = only(await taken.next())
  while (splitCertificates(last.bundle).length !== 1 || last.x509Svid === first.x509Svid) {
    last = only(await taken.next())
  }
  verify(last)
  assert.throws(() => verify(first, last), { reason: 'unknown-authority' })
})

test('with the crypto_profile cnsa2 post-quantum SVIDs are ML-DSA-87', async () => {
  await using all = await start('crypto_profile: cnsa2')
  using taken = new Taken((signal) => all.pq.fetchX509SVID({}, { metadata, signal }))
  const svid = only(await taken.next())
  assert.equal(verify(svid).parameterSet, 'ml-dsa-87')
  const [root] = splitCertificates(svid.bundle)
  assert.ok(root)
  assert.equal(parseMlDsaPublicKey(parseCertificate(root).publicKey).parameterSet, 'ml-dsa-87')
})

const execute = promisify(execFile)
const program = new URL('../../bin/assay', import.meta.url).pathname

test('assay fetches post-quantum SVIDs, shows their bundle, and verifies the one by the other', async () => {
  await using all = await start()
  const { server, agent } = all
  const environment = {
    ...process.env,
    ASSAY_SERVER_SOCKET: join(server.directory, 'server.sock'),
    SPIFFE_ENDPOINT_SOCKET: `unix://${agent.workloadSocket}`,
  }
  const assay = async (...args: readonly string[]): Promise<string> =>
    (await execute(program, args, { env: environment })).stdout
  const directory = join(agent.directory, 'svids')
  const fetched = JSON.parse(await assay('fetch', 'x509', '--pq', '--json', '--write', directory))
  assert.deepEqual(
    fetched.svids.map(({ spiffe_id, hint }: Record<string, string>) => [spiffe_id, hint]),
    [[web, 'pq']],
  )
  const document = join(agent.directory, 'pq-bundle.json')
  writeFileSync(document, await assay('bundle', 'show', '--pq', '--format', 'spiffe'))
  assert.match(readFileSync(document, 'utf8'), /"kty": "AKP"/)
  const roots = join(agent.directory, 'pq-bundle.pem')
  writeFileSync(roots, await assay('bundle', 'show', '--pq'))
  assert.equal(readFileSync(roots, 'utf8'), readFileSync(join(directory, 'bundle.0.pem'), 'utf8'))
  const svid = join(directory, 'svid.0.pem')
  const inspected = await assay(
    'x509',
    'inspect',
    svid,
    '--bundle',
    roots,
    '--pq-policy',
    'require',
  )
  assert.match(inspected, /^Verified +by ML-DSA alone$/m)
  assert.match(inspected, /^Verified PQ +yes, by /m)
  const classical = join(agent.directory, 'bundle.pem')
  await assert.rejects(assay('x509', 'inspect', svid, '--bundle', classical), { code: 4 })
  const [jwt] = JSON.parse(await assay('fetch', 'jwt', '--pq', '--json', '--audience', 'db'))
  const token = join(agent.directory, 'token')
  writeFileSync(token, jwt.token)
  const validate = ['validate', 'jwt', '--audience', 'db', '--svid-file', token]
  assert.match(await assay(...validate, '--pq'), new RegExp(`^valid: ${web}$`, 'm'))
  await assert.rejects(assay(...validate), { code: 2 })
  assert.match(await assay('fetch', 'bundle', '--pq', '--format', 'jwt'), /AKP/)
  const files = join(agent.directory, 'files')
  const helper = join(agent.directory, 'helper.yaml')
  writeFileSync(
    helper,
    `cert_dir: ${files}
post_quantum: true
svid_file_name: svid.pem
svid_key_file_name: key.pem
svid_bundle_file_name: bundle.pem
jwt_svids: [{ jwt_audience: db, jwt_svid_file_name: token }]
jwt_bundle_file_name: bundle.json
`,
  )
  await assay('helper', '--once', '--config', helper)
  const kept = (name: string): string => readFileSync(join(files, name), 'utf8')
  assert.equal(kept('bundle.pem'), readFileSync(roots, 'utf8'))
  assert.match(kept('bundle.json'), /"kty": "AKP"/)
  const [der] = parsePem(kept('svid.pem'), 'CERTIFICATE')
  assert.ok(der && isMlDsa(der))
  assert.equal(createPrivateKey(kept('key.pem')).asymmetricKeyType, 'ml-dsa-44')
})

test('without pq_signatures there is nothing post-quantum to be had, and it is said why', async () => {
  await using server = await LiveServer.start({ settings: 'ratelimit: { attestation: false }' })
  await using agent = await LiveAgent.start(server)
  const parent = await agent.ready()
  await server.createEntry({ parent, path: '/web', selectors: [ownSelector], more: { hint: 'pq' } })
  await agent.ready(1)
  const pq = agent.workloadConnection.client(PostQuantumDefinition)
  using taken = new Taken((signal) => pq.fetchX509SVID({}, { metadata, signal }))
  const refused = { code: 'unavailable', message: /pq_signatures: hybrid/ }
  await assert.rejects(taken.next(), refused)
  using classical = new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))
  assert.equal(only(await classical.next()).hint, 'pq')
})
