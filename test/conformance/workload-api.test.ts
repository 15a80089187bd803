// SPIFFE Workload Endpoint and Workload API against the real agent and server; numbers as in rules.tsv.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { chmodSync } from 'node:fs'
import process from 'node:process'
import { after, test } from 'node:test'
import { Metadata } from '@grpc/grpc-js'
import { AssayError } from '#base/errors.ts'
import { keyUsageBit, parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { encodePem } from '#pki/pem.ts'
import { HealthDefinition } from '#rpc/gen/grpc/health/v1/health.ts'
import { ServerReflectionDefinition } from '#rpc/gen/grpc/reflection/v1/reflection.ts'
import {
  SpiffeWorkloadAPIDefinition,
  type X509SVIDResponse,
} from '#rpc/gen/spiffe/workload/workload.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import type { ServiceDefinition } from '#rpc/service.ts'
import { nobody, noOtherUser } from '../support/another-user.ts'
import { eventually, LiveAgent, ownSelector, Taken, workloadHeader } from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'

const server = await LiveServer.start()
after(() => server[Symbol.asyncDispose]())
const agent = await LiveAgent.start(server)
after(() => agent[Symbol.asyncDispose]())
const parent = await agent.ready()

const partner = 'partner.example'
await server.local.client(BundleDefinition).batchCreateFederatedBundle({
  bundle: [
    {
      trustDomain: partner,
      x509Authorities: await ownAuthorities(),
      jwtAuthorities: [],
      refreshHint: 300,
      sequenceNumber: 1n,
    },
  ],
})
const web = await server.createEntry({
  parent,
  path: '/web',
  selectors: [ownSelector],
  more: { id: 'b-web', federatesWith: [partner], dnsNames: ['web.example.org'] },
})
await server.createEntry({
  parent,
  path: '/ledger',
  selectors: [ownSelector],
  more: { id: 'c-ledger', hint: 'internal' },
})
await agent.ready(2)

const metadata = workloadHeader
const { workload } = agent

function ownAuthorities() {
  return server.local
    .client(BundleDefinition)
    .getBundle({})
    .then(({ x509Authorities }) => x509Authorities)
}

function x509Stream(): Taken<X509SVIDResponse> {
  return new Taken((signal) => workload.fetchX509SVID({}, { metadata, signal }))
}

async function firstX509(): Promise<X509SVIDResponse> {
  using stream = x509Stream()
  return await stream.next()
}

async function deleteEntry(id: string): Promise<void> {
  await server.local.client(EntryDefinition).batchDeleteEntry({ ids: [id] })
}

/** One call of each method, with what it takes to be let in. */
const calls: Readonly<Record<string, (options: object) => Promise<unknown>>> = {
  FetchX509SVID: async (options) => {
    for await (const answer of workload.fetchX509SVID({}, options)) return answer
    return undefined
  },
  FetchX509Bundles: async (options) => {
    for await (const answer of workload.fetchX509Bundles({}, options)) return answer
    return undefined
  },
  FetchJWTBundles: async (options) => {
    for await (const answer of workload.fetchJWTBundles({}, options)) return answer
    return undefined
  },
  FetchJWTSVID: (options) => workload.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, options),
  ValidateJWTSVID: async (options) => {
    const token = await aToken('db')
    return workload.validateJWTSVID({ audience: 'db', svid: token }, options)
  },
}

async function aToken(audience: string): Promise<string> {
  const { svids } = await workload.fetchJWTSVID(
    { audience: [audience], spiffeId: '' },
    { metadata },
  )
  return svids[0]?.svid ?? ''
}

function claimsOf(token: string): Record<string, unknown> {
  const [, claims = ''] = token.split('.')
  return JSON.parse(
    new TextDecoder().decode(Uint8Array.fromBase64(claims, { alphabet: 'base64url' })),
  )
}

for (const [name, call] of Object.entries(calls)) {
  test(`E7, E8 ${name} without the security header, or with a wrong one, is refused as INVALID_ARGUMENT`, async () => {
    for (const value of [undefined, 'True', 'TRUE', '1', 'false', '']) {
      const options = value === undefined ? {} : { metadata: { 'workload.spiffe.io': value } }
      await assert.rejects(call(options), { code: 'invalid-argument' }, `header ${value}`)
    }
  })

  test(`F1, F33, E9, E14, E16, E23 ${name} answers over a plain socket, to a caller that shows nothing`, async () => {
    assert.ok(await call({ metadata }))
  })
}

test('E7 a security header that is there twice is refused', async () => {
  const { requireSecurityHeader } = await import('../../src/agent/workload-api/security-header.ts')
  const headers = new Metadata()
  headers.add('workload.spiffe.io', 'true')
  headers.add('workload.spiffe.io', 'true')
  const context = {
    method: '/SpiffeWorkloadAPI/FetchX509SVID',
    metadata: (key: string) => headers.get(key).filter((value) => typeof value === 'string'),
  }
  await assert.rejects(
    requireSecurityHeader(
      { context: context as never, request: undefined, fields: 0 },
      async () => {},
    ),
    { code: 'invalid-argument' },
  )
})

test('E20, F13, F19, F23, F27 a process that no entry matches is refused as PERMISSION_DENIED, everywhere', {
  skip: noOtherUser,
}, async () => {
  const said = await asNobody(agent.workloadSocket)
  assert.deepEqual(said, {
    fetchX509SVID: 'permission-denied',
    fetchX509Bundles: 'permission-denied',
    fetchJWTBundles: 'permission-denied',
    fetchJWTSVID: 'permission-denied',
    validateJWTSVID: 'permission-denied',
  })
})

test('E15 processes of two users get two identities', {
  skip: noOtherUser,
}, async () => {
  const entry = await server.createEntry({ parent, path: '/nobody', selectors: ['unix:uid:65534'] })
  await agent.ready(3)
  const said = await eventually(async () => {
    const answer = await asNobody(agent.workloadSocket)
    return answer['fetchX509SVID'] === 'permission-denied' ? undefined : answer
  }, 'the identity of another user')
  assert.equal(said['fetchX509SVID'], 'spiffe://example.org/nobody')
  await deleteEntry(entry.id)
})

/** What a process of the user `nobody` is answered to each call: the code, or the first SPIFFE ID. */
async function asNobody(socket: string): Promise<Record<string, string>> {
  chmodSync(agent.directory, 0o711)
  const program = new URL('../support/stranger.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [program, socket], {
    ...nobody,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  for await (const chunk of child.stdout) text += chunk
  return JSON.parse(text)
}

test('E18 before the first word of the server every call is UNAVAILABLE', async () => {
  await using other = await LiveAgent.start(server, { port: 1 })
  for (const name of ['fetchX509SVID', 'fetchX509Bundles', 'fetchJWTBundles'] as const) {
    using stream = new Taken<unknown>((signal) => other.workload[name]({}, { metadata, signal }))
    await assert.rejects(stream.next(), { code: 'unavailable', reason: 'not-synchronized' })
  }
  await assert.rejects(
    other.workload.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, { metadata }),
    { code: 'unavailable' },
  )
  const health = await other.workloadConnection.client(HealthDefinition).check({ service: '' })
  assert.equal(health.status, 2)
})

test('E22, F3, E24 reflection lists the Workload API with the standard methods alone, its post-quantum counterpart, health and itself', async () => {
  using call = agent.workloadConnection.client(ServerReflectionDefinition).serverReflectionInfo()
  await call.send({ host: '', messageRequest: { $case: 'listServices', value: '' } })
  const listed = await call.receive()
  assert.equal(listed?.messageResponse?.$case, 'listServicesResponse')
  const names =
    listed?.messageResponse?.$case === 'listServicesResponse'
      ? listed.messageResponse.value.service.map(({ name }) => name).sort()
      : []
  assert.deepEqual(names, [
    'SpiffeWorkloadAPI',
    'assay.workload.v1.PostQuantum',
    'grpc.health.v1.Health',
    'grpc.reflection.v1.ServerReflection',
    'grpc.reflection.v1alpha.ServerReflection',
  ])
  await call.send({
    host: '',
    messageRequest: { $case: 'fileContainingSymbol', value: 'SpiffeWorkloadAPI' },
  })
  const described = await call.receive()
  assert.equal(described?.messageResponse?.$case, 'fileDescriptorResponse')
  call.end()
  assert.deepEqual(
    Object.values(SpiffeWorkloadAPIDefinition.methods)
      .map(({ name }) => name)
      .sort(),
    [
      'FetchJWTBundles',
      'FetchJWTSVID',
      'FetchWITBundles',
      'FetchWITSVID',
      'FetchX509Bundles',
      'FetchX509SVID',
      'ValidateJWTSVID',
    ],
  )
})

test('E26 a method that does not exist is UNIMPLEMENTED', async () => {
  const invented = {
    ...SpiffeWorkloadAPIDefinition,
    methods: {
      fetchNothing: { ...SpiffeWorkloadAPIDefinition.methods.fetchJWTSVID, name: 'FetchNothing' },
    },
  } as const satisfies ServiceDefinition
  const client = agent.workloadConnection.client(invented)
  await assert.rejects(client.fetchNothing({}, { metadata }), { code: 'unimplemented' })
})

test('F30 both methods for WIT-SVIDs are UNIMPLEMENTED', async () => {
  for (const name of ['fetchWITSVID', 'fetchWITBundles'] as const) {
    using stream = new Taken<unknown>((signal) => workload[name]({}, { metadata, signal }))
    await assert.rejects(stream.next(), { code: 'unimplemented' })
  }
})

test('F14, F15, F16 an X.509-SVID is DER, leaf first, with its ID, its key in PKCS#8 and the bundle', async () => {
  const { svids } = await firstX509()
  assert.equal(svids.length, 2)
  for (const svid of svids) {
    const [leaf] = splitCertificates(svid.x509Svid)
    assert.ok(leaf)
    const certificate = parseCertificate(leaf)
    assert.deepEqual(certificate.uris, [svid.spiffeId])
    assert.equal((certificate.keyUsage ?? 0) & keyUsageBit.digitalSignature, 1)
    const key = createPrivateKey(encodePem('PRIVATE KEY', svid.x509SvidKey))
    const publicKey = createPublicKey(key).export({ format: 'der', type: 'spki' })
    assert.deepEqual(new Uint8Array(publicKey), new Uint8Array(certificate.publicKey))
    assert.deepEqual(
      splitCertificates(svid.bundle).map((der) => der.toHex()),
      (await ownAuthorities()).map(({ asn1 }) => asn1.toHex()),
    )
  }
})

test('F39 identities come in the order of their entries’ ids, at each call', async () => {
  for (let i = 0; i < 3; i += 1) {
    const { svids } = await firstX509()
    assert.deepEqual(
      svids.map(({ spiffeId }) => spiffeId),
      ['spiffe://example.org/web', 'spiffe://example.org/ledger'],
    )
  }
})

test('F6 the first message of a stream does not wait for anything to change', async () => {
  const start = performance.now()
  await firstX509()
  assert.ok(performance.now() - start < 1_000)
})

test('F5, F7 a new entry brings one message, with every identity in it', async () => {
  using stream = x509Stream()
  assert.equal((await stream.next()).svids.length, 2)
  const entry = await server.createEntry({ parent, path: '/third', selectors: [ownSelector] })
  const after = await stream.next()
  assert.deepEqual(
    after.svids.map(({ spiffeId }) => spiffeId).sort(),
    [
      'spiffe://example.org/ledger',
      'spiffe://example.org/third',
      'spiffe://example.org/web',
    ].sort(),
  )
  await deleteEntry(entry.id)
  assert.equal((await stream.next()).svids.length, 2)
})

test('F7 what concerns others brings no message', async () => {
  using x509 = x509Stream()
  using bundles = new Taken((signal) => workload.fetchX509Bundles({}, { metadata, signal }))
  await x509.next()
  await bundles.next()
  const others = async (): Promise<void> => {
    const entry = await server.createEntry({ parent, path: '/x', selectors: ['unix:uid:7'] })
    await agent.ready(3)
    await deleteEntry(entry.id)
    await eventually(
      async () => ((await agent.status()).entries === 2 ? true : undefined),
      'the removal',
    )
  }
  assert.ok(await x509.isSilentWhile(others))
  assert.ok(await bundles.isSilentWhile(others))
})

test('F17 of entries with the same hint one is served, for X.509 and JWT', async () => {
  const rival = await server.createEntry({
    parent,
    path: '/rival',
    selectors: [ownSelector],
    more: { id: 'a-rival', hint: 'internal' },
  })
  await agent.ready(3)
  const x509 = (await firstX509()).svids.filter(({ hint }) => hint !== '')
  const jwt = (
    await workload.fetchJWTSVID({ audience: ['db'], spiffeId: '' }, { metadata })
  ).svids.filter(({ hint }) => hint !== '')
  for (const svids of [x509, jwt]) {
    assert.equal(svids.length, 1)
    assert.equal(svids[0]?.hint, 'internal')
  }
  await deleteEntry(rival.id)
  await eventually(
    async () => ((await agent.status()).entries === 2 ? true : undefined),
    'the removal',
  )
})

test('F22, F28 bundles hold the own trust domain, and those the caller federates with', async () => {
  using x509 = new Taken((signal) => workload.fetchX509Bundles({}, { metadata, signal }))
  using jwt = new Taken((signal) => workload.fetchJWTBundles({}, { metadata, signal }))
  const ids = ['spiffe://example.org', `spiffe://${partner}`]
  assert.deepEqual([...(await x509.next()).bundles.keys()], ids)
  const { bundles } = await jwt.next()
  assert.deepEqual([...bundles.keys()], ids)
  for (const json of bundles.values()) {
    assert.ok(Array.isArray(JSON.parse(new TextDecoder().decode(json)).keys))
  }
  assert.deepEqual([...(await firstX509()).federatedBundles.keys()], [`spiffe://${partner}`])
})

test('F29 JWT bundles hold JWT keys and no X.509 ones', async () => {
  using stream = new Taken((signal) => workload.fetchJWTBundles({}, { metadata, signal }))
  const { bundles } = await stream.next()
  const own = JSON.parse(new TextDecoder().decode(bundles.get('spiffe://example.org')))
  const { jwtAuthorities } = await server.local.client(BundleDefinition).getBundle({})
  assert.deepEqual(
    own.keys.map(({ kid }: { kid: string }) => kid),
    jwtAuthorities.map(({ keyId }) => keyId),
  )
  assert.ok(own.keys.every((key: object) => !('x5c' in key)))
  const foreign = JSON.parse(new TextDecoder().decode(bundles.get(`spiffe://${partner}`)))
  assert.deepEqual(foreign.keys, [])
})

test('F7, F5 a federated bundle that changes comes to those who federate, in one whole message', async () => {
  using stream = x509Stream()
  const before = await stream.next()
  const [authority] = await ownAuthorities()
  const bundle = {
    trustDomain: partner,
    x509Authorities: [],
    jwtAuthorities: [],
    refreshHint: 60,
    sequenceNumber: 2n,
  }
  await server.local.client(BundleDefinition).batchSetFederatedBundle({ bundle: [bundle] })
  const after = await stream.next()
  assert.equal(after.svids.length, before.svids.length)
  assert.equal(after.federatedBundles.get(`spiffe://${partner}`)?.length, 0)
  await server.local.client(BundleDefinition).batchSetFederatedBundle({
    bundle: [{ ...bundle, sequenceNumber: 3n, x509Authorities: authority ? [authority] : [] }],
  })
  await stream.next()
})

test('F10 an empty mandatory field is INVALID_ARGUMENT', async () => {
  const requests: readonly Promise<unknown>[] = [
    workload.fetchJWTSVID({ audience: [], spiffeId: '' }, { metadata }),
    workload.fetchJWTSVID({ audience: [''], spiffeId: '' }, { metadata }),
    workload.fetchJWTSVID({ audience: ['db'], spiffeId: 'web' }, { metadata }),
    workload.validateJWTSVID({ audience: '', svid: 'x' }, { metadata }),
    workload.validateJWTSVID({ audience: 'db', svid: '' }, { metadata }),
  ]
  for (const request of requests) await assert.rejects(request, { code: 'invalid-argument' })
})

test('F24, F25, F26 a JWT-SVID for each identity, with exactly the audiences asked for', async () => {
  const { svids } = await workload.fetchJWTSVID(
    { audience: ['db', 'cache'], spiffeId: '' },
    { metadata },
  )
  assert.deepEqual(
    svids.map(({ spiffeId }) => spiffeId),
    ['spiffe://example.org/web', 'spiffe://example.org/ledger'],
  )
  for (const { svid, spiffeId } of svids) {
    assert.deepEqual(claimsOf(svid)['aud'], ['db', 'cache'])
    assert.equal(claimsOf(svid)['sub'], spiffeId)
  }
})

test('F27 a JWT-SVID for one identity, and for nobody else’s', async () => {
  const ask = (spiffeId: string) =>
    workload.fetchJWTSVID({ audience: ['db'], spiffeId }, { metadata })
  assert.equal((await ask('spiffe://example.org/ledger')).svids.length, 1)
  await assert.rejects(ask('spiffe://example.org/other'), { code: 'permission-denied' })
})

test('F31 ValidateJWTSVID refuses a wrong audience, an altered token, one without signature and a foreign one', async () => {
  const token = await aToken('db')
  const [header = '', claims = '', signature = ''] = token.split('.')
  const encode = (value: unknown): string =>
    new TextEncoder().encode(JSON.stringify(value)).toBase64({
      alphabet: 'base64url',
      omitPadding: true,
    })
  const changed = (over: object): string => encode({ ...claimsOf(token), ...over })
  const bad: Readonly<Record<string, readonly [audience: string, svid: string]>> = {
    'wrong audience': ['cache', token],
    'altered claims': ['db', `${header}.${changed({ exp: 9_999_999_999 })}.${signature}`],
    'no signature': ['db', `${header}.${claims}.`],
    'alg none': ['db', `${encode({ alg: 'none', typ: 'JWT' })}.${claims}.`],
    'foreign trust domain': [
      'db',
      `${header}.${changed({ sub: 'spiffe://elsewhere.example/x' })}.${signature}`,
    ],
    'not a token': ['db', 'hello'],
  }
  for (const [what, [audience, svid]] of Object.entries(bad)) {
    await assert.rejects(
      workload.validateJWTSVID({ audience, svid }, { metadata }),
      { code: 'invalid-argument' },
      what,
    )
  }
})

test('F34 a token of a trust domain whose bundle has no JWT key is refused', async () => {
  const token = await aToken('db')
  const [header = '', , signature = ''] = token.split('.')
  const claims = { ...claimsOf(token), sub: `spiffe://${partner}/web` }
  const svid = `${header}.${new TextEncoder()
    .encode(JSON.stringify(claims))
    .toBase64({ alphabet: 'base64url', omitPadding: true })}.${signature}`
  await assert.rejects(workload.validateJWTSVID({ audience: 'db', svid }, { metadata }), {
    code: 'invalid-argument',
    reason: 'trust-domain-without-jwt',
  })
})

test('F32, F33 ValidateJWTSVID answers with the ID and every claim, aud as a list', async () => {
  const token = await aToken('db')
  const answer = await workload.validateJWTSVID({ audience: 'db', svid: token }, { metadata })
  assert.equal(answer.spiffeId, 'spiffe://example.org/web')
  assert.deepEqual(answer.claims, claimsOf(token))
})

test('F19, F7 a stream ends with PERMISSION_DENIED when the last identity is withdrawn', async () => {
  using stream = x509Stream()
  using bundles = new Taken((signal) => workload.fetchX509Bundles({}, { metadata, signal }))
  await stream.next()
  await bundles.next()
  await deleteEntry('c-ledger')
  assert.deepEqual(
    (await stream.next()).svids.map(({ spiffeId }) => spiffeId),
    ['spiffe://example.org/web'],
  )
  await deleteEntry(web.id)
  await assert.rejects(stream.next(), (error) => {
    assert.ok(error instanceof AssayError)
    assert.equal(error.code, 'permission-denied')
    assert.match(error.message, /^no identity issued/)
    return true
  })
  await assert.rejects(bundles.next(), { code: 'permission-denied' })
})
