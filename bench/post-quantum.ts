// What post-quantum signatures and key agreement cost, in this one process: sizes, issuance, verification, handshake.
import { once } from 'node:events'
import { type AddressInfo, connect as connectTcp, createServer as createTcpServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import process from 'node:process'
import { setImmediate } from 'node:timers/promises'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { parseArgs } from 'node:util'
import { FakeClock } from '../src/base/fake-clock.ts'
import { parseCertificate } from '../src/pki/certificate.ts'
import { generateEcKeyPair, type KeyType } from '../src/pki/private-key.ts'
import { judgeAlternativeSignatures } from '../src/pq-crypto/alternative-chain.ts'
import type { MlDsaParameterSet } from '../src/pq-crypto/ml-dsa.ts'
import { secureContextOptions, type TlsIdentity } from '../src/rpc/tls.ts'
import { AuthorityManager } from '../src/server/authority/authority-manager.ts'
import { newAlternativeKeysInMemory } from '../src/server/plugin/key-manager/alternative-keys.ts'
import { withAlternativeKeys } from '../src/server/plugin/key-manager/hybrid.ts'
import type { Bundle } from '../src/spiffe/bundle.ts'
import { verifyHybridX509Svid } from '../src/spiffe/hybrid-x509-svid.ts'
import { spiffeId } from '../src/spiffe/spiffe-id.ts'
import { verifyX509Svid } from '../src/spiffe/x509-svid.ts'
import { authorityOptions, newMemoryKeyManager, trustDomain } from '../test/support/authorities.ts'

const help = `usage: bench/post-quantum [--seconds N] [--in-flight N] [--figures] [--json]

Sizes of certificates; X.509-SVIDs issued a second, with the longest time the event loop was held up; microseconds to
verify one; mutual TLS handshakes, with their bytes. All in one process, keys in memory: it compares what the
signatures cost and nothing else.

Afterwards the figures that P-256 + ML-DSA-44 has to reach on two cores, each with pass or FAIL; exit status 1 when one is
not reached. --figures measures these alone.
`

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    'in-flight': { type: 'string', default: '64' },
    figures: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

interface Profile {
  readonly name: string
  readonly caKeyType: KeyType
  readonly pqParameterSet: MlDsaParameterSet | undefined
}

const profiles: readonly Profile[] = [
  { name: 'P-256', caKeyType: 'ec-p256', pqParameterSet: undefined },
  { name: 'P-256 + ML-DSA-44', caKeyType: 'ec-p256', pqParameterSet: 'ml-dsa-44' },
  { name: 'P-256 + ML-DSA-65', caKeyType: 'ec-p256', pqParameterSet: 'ml-dsa-65' },
  { name: 'P-256 + ML-DSA-87', caKeyType: 'ec-p256', pqParameterSet: 'ml-dsa-87' },
  { name: 'P-384', caKeyType: 'ec-p384', pqParameterSet: undefined },
  { name: 'P-384 + ML-DSA-87', caKeyType: 'ec-p384', pqParameterSet: 'ml-dsa-87' },
]

/** The one that figures are stated for. */
const stated = 'P-256 + ML-DSA-44'

const runMs = 1000 * Number(values.seconds)

async function openIssuer({ caKeyType, pqParameterSet }: Profile) {
  const options = authorityOptions({
    caKeyType,
    pqParameterSet,
    keyManager: withAlternativeKeys(newMemoryKeyManager(), {
      alternatives: newAlternativeKeysInMemory(),
      parameterSet: pqParameterSet,
    }),
  })
  const manager = await AuthorityManager.open(options)
  const { publicKey, privateKey } = generateEcKeyPair(
    caKeyType === 'ec-p384' ? 'ec-p384' : 'ec-p256',
  )
  const issueWith = (path: string, dnsNames: readonly string[]) =>
    manager.certificateAuthority.issueX509Svid({
      spiffeId: spiffeId(trustDomain, path),
      publicKey,
      dnsNames,
      ttlSeconds: 0,
    })
  const issue = () => issueWith('/bench/web', ['web.example.org'])
  const bundle = await options.datastore.bundle(trustDomain)
  if (bundle === undefined) throw new Error('there is no bundle')
  const plain = await issueWith('/web', [])
  return { issue, plain, bundle, privateKey, [Symbol.dispose]: () => manager[Symbol.dispose]() }
}

/** SVIDs a second, and the longest time, in milliseconds, that nothing else could run. */
async function issuance(issue: () => Promise<unknown>) {
  for (let i = 0; i < 200; i++) await issue()
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const start = performance.now()
  const before = process.cpuUsage()
  const end = start + runMs
  let issued = 0
  const worker = async (): Promise<void> => {
    while (performance.now() < end) {
      await issue()
      issued++
      // As between two calls of a server: what waits for its turn gets it.
      await setImmediate()
    }
  }
  await Promise.all(Array.from({ length: Number(values['in-flight']) }, worker))
  const perSecond = (issued * 1000) / (performance.now() - start)
  const { user, system } = process.cpuUsage(before)
  delay.disable()
  return {
    perSecond,
    cpuMicroseconds: (user + system) / issued,
    p99Ms: delay.percentile(99) / 1e6,
    longestMs: delay.max / 1e6,
  }
}

/** Microseconds of one call, the median. */
function microseconds(call: () => void): number {
  for (let i = 0; i < 100; i++) call()
  const end = performance.now() + runMs / 2
  const took: number[] = []
  while (performance.now() < end) {
    const start = performance.now()
    call()
    took.push(performance.now() - start)
  }
  took.sort((a, b) => a - b)
  return 1000 * (took[Math.floor(took.length / 2)] ?? 0)
}

function verification(certificates: readonly Uint8Array[], bundle: Bundle) {
  const nowSeconds = Math.floor(new FakeClock().now().epochMilliseconds / 1000)
  const presentation = { certificates, bundles: () => bundle, nowSeconds }
  const { path } = verifyX509Svid(presentation)
  return {
    classicalMicroseconds: microseconds(() => void verifyX509Svid(presentation)),
    alternativeMicroseconds: microseconds(() => void judgeAlternativeSignatures(path)),
    wholeMicroseconds: microseconds(
      () => void verifyHybridX509Svid({ ...presentation, policy: 'prefer' }),
    ),
  }
}

/** Mutual TLS handshakes one after the other, and the bytes of one, up and down. */
async function handshakes(identity: TlsIdentity, groups: string) {
  const options = {
    ...secureContextOptions({ identity, requirePqKem: false, profile: 'default' }),
    ecdhCurve: groups,
    rejectUnauthorized: false,
  }
  const server = createServer({ ...options, requestCert: true })
  server.on('secureConnection', (socket) => socket.resume().on('error', () => {}))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bytes = { up: 0, down: 0 }
  const meter = createTcpServer((socket) => {
    const onward = connectTcp((server.address() as AddressInfo).port, '127.0.0.1')
    for (const [from, to, way] of [
      [socket, onward, 'up'],
      [onward, socket, 'down'],
    ] as const) {
      from
        .on('error', () => {})
        .on('data', (chunk: Uint8Array) => {
          bytes[way] += chunk.length
          to.write(chunk)
        })
      from.on('close', () => to.destroy())
    }
  })
  meter.listen(0, '127.0.0.1')
  await once(meter, 'listening')
  const { port } = meter.address() as AddressInfo
  const one = async (): Promise<void> => {
    const socket: TLSSocket = connect({ ...options, port, host: '127.0.0.1' })
    await once(socket, 'secureConnect')
    socket.on('error', () => {}).destroy()
    await once(socket, 'close')
  }
  await one()
  const size = { ...bytes }
  const start = performance.now()
  let made = 0
  while (performance.now() < start + runMs / 2) {
    await one()
    made++
  }
  const milliseconds = (performance.now() - start) / made
  server.close()
  meter.close()
  return { milliseconds, ...size }
}

async function measure(profile: Profile) {
  using issuer = await openIssuer(profile)
  const { certificates } = await issuer.issue()
  const [leaf] = certificates
  const [authority] = issuer.bundle.x509Authorities
  if (leaf === undefined || authority === undefined) throw new Error('nothing was issued')
  const identity = { key: issuer.privateKey, certificates }
  return {
    profile: profile.name,
    leafBytes: parseCertificate(leaf).raw.length,
    plainLeafBytes: issuer.plain.certificates[0]?.length ?? 0,
    caBytes: authority.certificate.length,
    issuance: await issuance(issuer.issue),
    verification: verification(certificates, issuer.bundle),
    handshake: {
      classical: await handshakes(identity, 'X25519'),
      hybrid: await handshakes(identity, 'X25519MLKEM768'),
    },
  }
}

type Measured = Awaited<ReturnType<typeof measure>>

/** What is asked of {@link stated}. */
const figures: readonly {
  readonly what: string
  readonly unit: string
  readonly limit: number
  readonly isReached: (value: number, limit: number) => boolean
  readonly of: (m: Measured) => number
}[] = [
  {
    what: 'issuance, at least',
    unit: 'SVID/s',
    limit: 2000,
    isReached: (value, limit) => value >= limit,
    of: (m) => m.issuance.perSecond,
  },
  {
    what: 'verification of both signatures, at most',
    unit: 'µs',
    limit: 250,
    isReached: (value, limit) => value <= limit,
    of: (m) => m.verification.wholeMicroseconds,
  },
  {
    what: 'leaf of spiffe://example.org/web without DNS names, at most',
    unit: 'B',
    limit: 3000,
    isReached: (value, limit) => value <= limit,
    of: (m) => m.plainLeafBytes,
  },
  {
    what: 'event loop held up while issuing, at most',
    unit: 'ms',
    limit: 10,
    isReached: (value, limit) => value <= limit,
    of: (m) => m.issuance.longestMs,
  },
]

const judged = (m: Measured) =>
  figures.map(({ what, unit, limit, isReached, of }) => ({
    what,
    unit,
    limit,
    value: Math.round(10 * of(m)) / 10,
    pass: isReached(of(m), limit),
  }))

const columns: readonly (readonly [string, (m: Measured) => string])[] = [
  ['certificates', (m) => m.profile],
  ['leaf B', (m) => String(m.leafBytes)],
  ['CA B', (m) => String(m.caBytes)],
  ['issued/s', (m) => m.issuance.perSecond.toFixed(0)],
  ['CPU µs, all threads', (m) => m.issuance.cpuMicroseconds.toFixed(0)],
  [
    'event loop p99 / longest ms',
    (m) => `${m.issuance.p99Ms.toFixed(1)} / ${m.issuance.longestMs.toFixed(1)}`,
  ],
  ['verify classical µs', (m) => m.verification.classicalMicroseconds.toFixed(0)],
  ['ML-DSA µs', (m) => m.verification.alternativeMicroseconds.toFixed(0)],
  ['both µs', (m) => m.verification.wholeMicroseconds.toFixed(0)],
  ['handshake X25519 ms', (m) => m.handshake.classical.milliseconds.toFixed(1)],
  ['B up / down', (m) => `${m.handshake.classical.up} / ${m.handshake.classical.down}`],
  ['X25519MLKEM768 ms', (m) => m.handshake.hybrid.milliseconds.toFixed(1)],
  ['B up / down', (m) => `${m.handshake.hybrid.up} / ${m.handshake.hybrid.down}`],
]

if (values.help) process.stdout.write(help)
else {
  const measured: Measured[] = []
  for (const profile of profiles) {
    if (!values.figures || profile.name === stated) measured.push(await measure(profile))
  }
  const found = measured.filter(({ profile }) => profile === stated).flatMap(judged)
  if (found.some(({ pass }) => !pass)) process.exitCode = 1
  if (values.json) console.log(JSON.stringify({ measured, figures: found }))
  else {
    console.log(`| ${columns.map(([heading]) => heading).join(' | ')} |`)
    console.log(`|${'---|'.repeat(columns.length)}`)
    for (const one of measured)
      console.log(`| ${columns.map(([, cell]) => cell(one)).join(' | ')} |`)
    console.log(`\n${stated}, on ${availableParallelism()} cores:`)
    for (const { what, unit, limit, value, pass } of found) {
      console.log(`${pass ? 'pass' : 'FAIL'}  ${what} ${limit} ${unit}: ${value} ${unit}`)
    }
  }
}
