// A server below an upstream authority: what agents, workloads, operators and SPIRE's tools see of it.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { DebugDefinition } from '#rpc/gen/spire/api/server/debug/v1/debug.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { type Issued, newAuthority, newIntermediate } from '../support/certificates.ts'
import { LiveAgent, ownSelector, workloadHeader } from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'
import { newUpstreamFolder, pem, type UpstreamFolder } from '../support/upstream.ts'

const year = 365 * 24 * 3600
const notAfterSeconds = Math.floor(Date.now() / 1000) + year
const root = newAuthority('example.org', { notAfterSeconds, uris: [] })
const ca = newIntermediate(root, 'example.org', { notAfterSeconds })
const keyId = ({ certificate }: Issued): string =>
  parseCertificate(certificate).subjectKeyId?.toHex() ?? ''

let folder: UpstreamFolder
let live: LiveServer
let agent: LiveAgent
const authorities = () => live.local.client(LocalAuthorityDefinition)

before(async () => {
  folder = await newUpstreamFolder()
  await folder.write(ca, [], [root])
  live = await LiveServer.start({
    settings: `replacement_spread: 0s
upstream_authority: { disk: { cert_file_path: ${folder.certFilePath}, key_file_path: ${folder.keyFilePath}, bundle_file_path: ${folder.bundleFilePath} } }`,
  })
  agent = await LiveAgent.start(live)
  const parent = await agent.ready()
  await live.createEntry({ parent, path: '/web', selectors: [ownSelector] })
  await agent.ready(1)
})

after(async () => {
  await agent[Symbol.asyncDispose]()
  await live[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})

interface Held {
  readonly chain: readonly string[]
  readonly roots: readonly string[]
}

const hex = (certificates: readonly Uint8Array[]): string[] =>
  certificates.map((der) => der.toHex())
const hexOf = ({ certificate }: Issued): string => certificate.toHex()

/** Takes what a workload is sent until it is as meant. */
async function heldUntil(isMeant: (held: Held) => boolean): Promise<Held> {
  const options = { metadata: workloadHeader, timeoutMs: 10_000 }
  for await (const { svids } of agent.workload.fetchX509SVID({}, options)) {
    const [svid] = svids
    if (svid === undefined) continue
    const held = {
      chain: hex(splitCertificates(svid.x509Svid)),
      roots: hex(splitCertificates(svid.bundle)),
    }
    if (isMeant(held)) return held
  }
  throw new Error('the stream has ended')
}

test('a workload gets the chain and the root', async () => {
  const { chain, roots } = await heldUntil(() => true)
  assert.equal(chain.length, 3)
  assert.equal(chain[2], hexOf(ca))
  assert.deepEqual(roots, [hexOf(root)])
})

test('the server shows the chain itself, also to SPIRE’s debug service', async () => {
  const { svidChain } = await live.local.client(DebugDefinition).getInfo({})
  assert.deepEqual(
    svidChain.map(({ id }) => id?.path ?? 'none'),
    ['/spire/server', '', '', 'none'],
  )
})

test('LocalAuthority tells what is above each authority', async () => {
  const state = await authorities().getX509AuthorityState({})
  assert.equal(state.active?.upstreamAuthoritySubjectKeyId, keyId(ca))
  assert.notEqual(state.active?.authorityId, keyId(ca))
  const jwt = await authorities().getJWTAuthorityState({})
  assert.equal(jwt.active?.upstreamAuthoritySubjectKeyId, '')
})

test('health and metrics know the upstream authority', async () => {
  const ready = await fetch(`http://127.0.0.1:${live.server.healthPort}/ready`)
  const report = (await ready.json()) as { readonly checks: Record<string, object> }
  assert.deepEqual(report.checks['upstream-authority'], { live: true, ready: true })
  const metrics = await (await fetch(`http://127.0.0.1:${live.server.metricsPort}/metrics`)).text()
  assert.match(metrics, new RegExp(`what="upstream-ca"\\} ${notAfterSeconds}`))
})

test('agents replace what chains to a tainted root, and drop it when it is revoked', async () => {
  const nextRoot = newAuthority('example.org', { notAfterSeconds })
  const nextCa = newIntermediate(nextRoot, 'example.org', { notAfterSeconds })
  await folder.write(nextCa, [], [root, nextRoot])
  const { preparedAuthority } = await authorities().prepareX509Authority({})
  await authorities().activateX509Authority({ authorityId: preparedAuthority?.authorityId ?? '' })
  await assert.rejects(
    authorities().taintX509UpstreamAuthority({ subjectKeyId: keyId(nextRoot) }),
    {
      code: 'invalid-argument',
    },
  )
  await assert.rejects(
    authorities().taintX509Authority({ authorityId: preparedAuthority?.authorityId ?? '' }),
    { code: 'failed-precondition' },
  )
  const tainted = await authorities().taintX509UpstreamAuthority({ subjectKeyId: keyId(root) })
  assert.equal(tainted.upstreamAuthoritySubjectKeyId, keyId(root))
  const isNew = ({ chain }: Held): boolean => chain[2] === hexOf(nextCa)
  assert.equal((await heldUntil(isNew)).roots.length, 2)
  await writeFile(folder.bundleFilePath, pem([nextRoot]))
  await authorities().revokeX509UpstreamAuthority({ subjectKeyId: keyId(root) })
  const { chain, roots } = await heldUntil((held) => held.roots.length === 1)
  assert.deepEqual(roots, [hexOf(nextRoot)])
  assert.equal(chain[2], hexOf(nextCa))
})
