// Rotation of authorities as workloads of one node see it, and as the agent tells its server of it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect as connectSession } from 'node:http2'
import { connect as connectSocket } from 'node:net'
import { after, test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { stringMember } from '#pki/json.ts'
import { parseCompactJws } from '#pki/jws.ts'
import type { Status } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import type { X509SVIDResponse } from '#rpc/gen/spiffe/workload/workload.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { parseJwks } from '#spiffe/bundle-json.ts'
import {
  breath,
  eventually,
  LiveAgent,
  workloadHeader as metadata,
  ownSelector,
  passTime,
  Taken,
} from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'

const clock = new FakeClock()
const server = await LiveServer.start({
  clock,
  settings:
    'ratelimit: { attestation: false }\nreplacement_spread: 10m\nca_ttl: 72h\nagent_ttl: 8h\ndefault_x509_svid_ttl: 4h',
})
after(() => server[Symbol.asyncDispose]())
const agent = await LiveAgent.start(server, { clock })
after(() => agent[Symbol.asyncDispose]())
const parent = await agent.ready()
for (const path of ['/one', '/two']) {
  await server.createEntry({ parent, path, selectors: [ownSelector] })
}
await agent.ready(2)
const authorities = server.local.client(LocalAuthorityDefinition)
const milliseconds = (n: number): Temporal.Duration => Temporal.Duration.from({ milliseconds: n })

const x509 = () => new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))

async function ownSequenceNumber(): Promise<bigint> {
  return (await server.local.client(BundleDefinition).getBundle({})).sequenceNumber
}

/** Waits, a moment of the clock at a time, until the agent's status is as it should be. */
function statusWhen(isIt: (status: Status) => boolean, what: string): Promise<Status> {
  return eventually(async () => {
    await clock.advance(milliseconds(20))
    const status = await agent.status()
    return isIt(status) ? status : undefined
  }, what)
}

function issuersOf({ svids }: X509SVIDResponse): string[] {
  return svids.map(({ x509Svid, bundle }) => {
    const [leaf = new Uint8Array()] = splitCertificates(x509Svid)
    const issuer = parseCertificate(leaf).authorityKeyId?.toHex() ?? ''
    const roots = splitCertificates(bundle).map((der) =>
      parseCertificate(der).subjectKeyId?.toHex(),
    )
    assert.ok(roots.includes(issuer), `authority ${issuer} is not among ${roots}`)
    return issuer
  })
}

async function prepareX509(): Promise<string> {
  const { preparedAuthority } = await authorities.prepareX509Authority({})
  return preparedAuthority?.authorityId ?? ''
}

/** A workload that opens a stream and leaves it unread: it grants HTTP/2 no window. */
async function unreadX509Bundles(): Promise<AsyncDisposable> {
  const session = connectSession('http://localhost', {
    createConnection: () => connectSocket(agent.workloadSocket),
    settings: { initialWindowSize: 0 },
  })
  const stream = session.request({
    ':method': 'POST',
    ':path': '/SpiffeWorkloadAPI/FetchX509Bundles',
    'content-type': 'application/grpc',
    te: 'trailers',
    ...metadata,
  })
  stream.on('error', () => {})
  // An empty message: no compression, no length.
  stream.end(new Uint8Array(5))
  await once(stream, 'response')
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(session, 'close')
      session.destroy()
      await closed
    },
  }
}

test('the server is told which bundle workloads have and how many SVIDs there are of an authority', async () => {
  const { authorities: held } = await statusWhen(({ report }) => report === 'taken', 'the report')
  // Two of the workload, one of the agent itself.
  assert.deepEqual(
    held.map(({ trust, svids }) => ({ trust, svids })),
    [{ trust: 'trusted', svids: 3 }],
  )
  const before = await ownSequenceNumber()
  await prepareX509()
  const after = await ownSequenceNumber()
  assert.ok(after > before)
  const status = await statusWhen(
    ({ report, workloadBundleSequenceNumber: had }) => report === 'taken' && had === after,
    'the report of the new bundle',
  )
  assert.equal(status.bundleSequenceNumber, after)
})

test('what a tainted authority signed is replaced within the spread the server states, and not at once', async () => {
  using stream = x509()
  const [old = ''] = issuersOf(await stream.next())
  const next = await prepareX509()
  await authorities.activateX509Authority({ authorityId: next })
  await stream.next() // the bundle with both
  await authorities.taintX509Authority({ authorityId: old })
  const { authorities: tainted } = await statusWhen(
    (status) => status.authorities.some(({ trust }) => trust === 'tainted'),
    'the taint',
  )
  assert.deepEqual(
    tainted.map(({ authorityId, svids }) => ({ authorityId, svids })),
    [{ authorityId: old, svids: 3 }],
  )
  assert.ok(await stream.isSilentWhile(() => breath(100)), 'it is replaced at once')
  let issuers: string[] = []
  const replaced = stream.next().then((answer) => {
    issuers = issuersOf(answer)
  })
  await passTime(clock, 10)
  await replaced
  assert.deepEqual(issuers, [next, next])
  const { authorities: held } = await statusWhen(
    (status) => status.report === 'taken' && status.authorities.length === 1,
    'the end of the old authority',
  )
  assert.deepEqual(
    held.map(({ authorityId, svids }) => ({ authorityId, svids })),
    [{ authorityId: next, svids: 3 }],
  )
  await authorities.revokeX509Authority({ authorityId: old })
  await stream.next()
})

test('no workload gets an SVID of an authority that another one has not been told of, nor waits for one that does not read for long', async () => {
  using reading = x509()
  const [old = ''] = issuersOf(await reading.next())
  const before = await ownSequenceNumber()
  await using _unread = await unreadX509Bundles()
  const next = await prepareX509()
  const after = await ownSequenceNumber()
  await reading.next()
  await authorities.activateX509Authority({ authorityId: next })
  await server.createEntry({ parent, path: '/three', selectors: [ownSelector] })
  assert.ok(
    await reading.isSilentWhile(async () => {
      for (let turn = 0; turn < 50; turn += 1) {
        await clock.advance(milliseconds(100))
        await breath()
      }
    }),
    'the SVID of the new authority has come before the bundle has gone everywhere',
  )
  const waiting = await agent.status()
  assert.equal(waiting.workloadBundleSequenceNumber, before)
  assert.equal(waiting.bundleSequenceNumber, after)
  await clock.advance(Temporal.Duration.from({ seconds: 6 }))
  assert.deepEqual(new Set(issuersOf(await reading.next())), new Set([old, next]))
  const status = await statusWhen(({ report }) => report === 'taken', 'the report')
  assert.equal(status.workloadBundleSequenceNumber, after)
  const warnings = agent.lines.filter((line) => line.includes('does not read its stream'))
  assert.equal(warnings.length, 1)
  const { pid, uid } = JSON.parse(warnings[0] ?? '{}')
  assert.deepEqual({ pid, uid }, { pid: process.pid, uid: process.getuid?.() })
})

test('a workload gets no token of a key that its bundle lacks, and none of a tainted one', async () => {
  using bundles = new Taken((signal) => agent.workload.fetchJWTBundles({}, { metadata, signal }))
  const keyIds = async (): Promise<string[]> => {
    const [jwks] = (await bundles.next()).bundles.values()
    return parseJwks(jwks ?? new Uint8Array()).map(({ keyId }) => keyId)
  }
  const ask = async (): Promise<string> => {
    const { svids } = await agent.workload.fetchJWTSVID({ audience: ['db'] }, { metadata })
    return stringMember(parseCompactJws(svids[0]?.svid ?? '').header, 'kid') ?? ''
  }
  await keyIds()
  const old = await ask()
  const { preparedAuthority } = await authorities.prepareJWTAuthority({})
  const next = preparedAuthority?.authorityId ?? ''
  await authorities.activateJWTAuthority({ authorityId: next })
  await authorities.taintJWTAuthority({ authorityId: old })
  const kid = await eventually(async () => {
    const kid = await ask()
    return kid === old ? undefined : kid
  }, 'a token of the new key')
  assert.equal(kid, next)
  assert.ok((await keyIds()).includes(next))
})

// The last one: this agent joined by a token, and is not let in again.
test('an agent that the server lets in no more, because it revoked a tainted authority, does not wait for its moment', async () => {
  // It signed the agent's own SVID, and another one has taken over since.
  const authorityId = (await authorities.getX509AuthorityState({})).old?.authorityId ?? ''
  await authorities.taintX509Authority({ authorityId })
  await statusWhen(
    (status) => status.authorities.some(({ trust }) => trust === 'tainted'),
    'the taint',
  )
  await authorities.revokeX509Authority({ authorityId })
  const attempts = () => agent.lines.filter((line) => line.includes('cannot renew the agent'))
  const before = attempts().length
  await passTime(clock, 1)
  await eventually(() => attempts().length > before || undefined, 'an attempt to renew')
})
