// What becomes of an agent that is restarted, banned, forgotten, misled or killed.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { after, test } from 'node:test'
import { type Clock, SystemClock } from '#base/clock.ts'
import { parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { encodePem } from '#pki/pem.ts'
import { connectUnix } from '#rpc/client.ts'
import {
  SpiffeWorkloadAPIDefinition,
  type X509SVIDResponse,
} from '#rpc/gen/spiffe/workload/workload.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import {
  eventually,
  joinToken,
  LiveAgent,
  workloadHeader as metadata,
  ownSelector,
  Taken,
} from '../support/live-agent.ts'
import { idOf, LiveServer } from '../support/live-server.ts'

const server = await LiveServer.start()
after(() => server[Symbol.asyncDispose]())

const x509 = (agent: LiveAgent): Taken<X509SVIDResponse> =>
  new Taken((signal) => agent.workload.fetchX509SVID({}, { metadata, signal }))

/** A directory that outlives its agent. */
function keptDirectory(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'assay-agent-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) }
}

/** A clock that is off by some minutes. */
function skewedClock(minutes: number): Clock {
  const clock = new SystemClock()
  return {
    now: () => clock.now().add({ minutes }),
    sleep: (duration, signal) => clock.sleep(duration, signal),
  }
}

test('an agent that joined by token is the same one after a restart, and its key is its own', async () => {
  using directory = keptDirectory()
  const nodeAttestor = `join_token: { token: ${await joinToken(server)} }`
  const options = { directory: directory.path, nodeAttestor }
  const first = await LiveAgent.start(server, options)
  const id = await first.ready()
  await first[Symbol.asyncDispose]()
  const kept = join(directory.path, 'data', 'agent-identity.json')
  assert.equal(statSync(kept).mode & 0o777, 0o600)
  assert.equal(statSync(join(directory.path, 'data')).mode & 0o777, 0o700)
  // The token has been used: only what was kept can let it in.
  await using second = await LiveAgent.start(server, options)
  assert.equal(await second.ready(), id)
})

test('a banned agent serves nobody from that moment, forgets its identity and ends', async () => {
  using directory = keptDirectory()
  const agent = await LiveAgent.start(server, { directory: directory.path })
  const id = await agent.ready()
  await server.createEntry({ parent: id, path: '/banned', selectors: [ownSelector] })
  await agent.ready(1)
  using stream = x509(agent)
  await stream.next()
  const ended = assert.rejects(stream.next(), { code: 'unavailable' })
  await server.local.client(AgentDefinition).banAgent({ id: idOf(id) })
  assert.equal(await agent.ended, 'banned')
  await ended
  assert.equal(existsSync(join(directory.path, 'data', 'agent-identity.json')), false)
  assert.ok(agent.lines.some((line) => line.includes('the server has banned this node')))
  await agent[Symbol.asyncDispose]()
})

test('an agent that the server has forgotten serves on, and joins again with a new token in its file', async () => {
  using directory = keptDirectory()
  const tokenFile = join(directory.path, 'token')
  writeFileSync(tokenFile, `${await joinToken(server)}\n`)
  await using agent = await LiveAgent.start(server, {
    directory: directory.path,
    nodeAttestor: `join_token: { token_file: ${tokenFile} }`,
  })
  const id = await agent.ready()
  await server.createEntry({ parent: id, path: '/forgotten', selectors: [ownSelector] })
  await agent.ready(1)
  await server.local.client(AgentDefinition).deleteAgent({ id: idOf(id) })
  await eventually(
    async () => ((await agent.status()).state === 'attesting' ? true : undefined),
    'attestation',
  )
  using stream = x509(agent)
  assert.equal((await stream.next()).svids.length, 1)
  writeFileSync(tokenFile, await joinToken(server))
  const next = await eventually(async () => {
    const { state, agentId } = await agent.status()
    return state === 'ready' && agentId !== id ? agentId : undefined
  }, 'another identity of the agent')
  assert.match(next, /\/spire\/agent\/join_token\//)
})

test('no message ever holds an SVID whose authority its bundle lacks, while authorities change', async () => {
  await using agent = await LiveAgent.start(server)
  const parent = await agent.ready()
  await server.createEntry({ parent, path: '/rotating', selectors: [ownSelector] })
  await agent.ready(1)
  using stream = x509(agent)
  const check = (answer: X509SVIDResponse): { issuer: string; roots: string[] } => {
    const [svid] = answer.svids
    const [leaf = new Uint8Array()] = splitCertificates(svid?.x509Svid ?? new Uint8Array())
    const issuer = parseCertificate(leaf).authorityKeyId?.toHex() ?? ''
    const roots = splitCertificates(svid?.bundle ?? new Uint8Array()).map(
      (der) => parseCertificate(der).subjectKeyId?.toHex() ?? '',
    )
    assert.ok(roots.includes(issuer), `authority ${issuer} is not among ${roots}`)
    return { issuer, roots }
  }
  const until = async (done: (seen: ReturnType<typeof check>) => boolean): Promise<void> => {
    while (!done(check(await stream.next())));
  }
  const old = check(await stream.next()).issuer
  const authorities = server.local.client(LocalAuthorityDefinition)
  const { preparedAuthority } = await authorities.prepareX509Authority({})
  const next = preparedAuthority?.authorityId ?? ''
  await until(({ roots }) => roots.length === 2)
  await authorities.activateX509Authority({ authorityId: next })
  await authorities.taintX509Authority({ authorityId: old })
  await until(({ issuer }) => issuer === next)
  await authorities.revokeX509Authority({ authorityId: old })
  await until(({ roots }) => !roots.includes(old))
})

test('an agent does not attest to a server of another authority, and says so', async () => {
  await using other = await LiveServer.start()
  await using agent = await LiveAgent.start(server, { port: other.server.port ?? 0 })
  const { detail } = await eventually(async () => {
    const status = await agent.status()
    return status.state === 'attesting' && status.detail !== '' ? status : undefined
  }, 'the reason')
  assert.match(detail, /assay bundle show/)
})

test('an agent whose clock is off says so, and works as long as certificates allow it', async () => {
  await using ahead = await LiveAgent.start(server, { clock: skewedClock(20) })
  const { detail } = await eventually(async () => {
    const status = await ahead.status()
    return status.state === 'degraded' ? status : undefined
  }, 'the warning')
  assert.equal(detail, "the clock of this node is 20m ahead of the server's")

  await using behind = await LiveAgent.start(server, { clock: skewedClock(-600) })
  const status = await eventually(async () => {
    const seen = await behind.status()
    return seen.detail === '' ? undefined : seen
  }, 'the reason')
  assert.equal(status.state, 'attesting')
  assert.match(status.detail, /clock of this node/)
})

test('R3 an agent that is killed serves again within 3 seconds of its start', async () => {
  using directory = keptDirectory()
  const socket = join(directory.path, 'public', 'api.sock')
  const start = await agentProgram(directory.path, socket)
  const parent = await joinedSince(await joinedAgents(), start)
  await server.createEntry({ parent, path: '/killed', selectors: [ownSelector] })
  for (let kill = 0; kill < 3; kill += 1) {
    const { child, startedAtMs } = await start()
    const servedAtMs = await eventually(() => oneSvid(socket), 'an SVID', 25)
    assert.ok(servedAtMs - startedAtMs < 3_000, `served after ${servedAtMs - startedAtMs} ms`)
    await killed(child)
  }
})

interface Started {
  readonly child: ChildProcess
  /** When the program was loaded and began, as it says itself. Unix time. */
  readonly startedAtMs: number
}

/** Writes the files of an agent, and returns what starts it as a process of its own. */
async function agentProgram(directory: string, socket: string): Promise<() => Promise<Started>> {
  const { x509Authorities } = await server.local.client(BundleDefinition).getBundle({})
  writeFileSync(
    join(directory, 'bundle.pem'),
    x509Authorities.map(({ asn1 }) => encodePem('CERTIFICATE', asn1)).join(''),
  )
  const config = join(directory, 'agent.yaml')
  writeFileSync(
    config,
    `
trust_domain: example.org
data_dir: data
server_address: 127.0.0.1
server_port: ${server.server.port}
trust_bundle_path: bundle.pem
socket_path: ${socket}
node_attestor: { join_token: { token: ${await joinToken(server)} } }
log_format: json
`,
  )
  const program = new URL('../../src/agent/main.ts', import.meta.url).pathname
  return async () => {
    const child = spawn(process.execPath, [program, 'run', '--config', config], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const [first] = await once(child.stderr, 'data')
    child.stderr.resume()
    const { time } = JSON.parse(String(first).split('\n', 1)[0] ?? '')
    return { child, startedAtMs: Temporal.Instant.from(time).epochMilliseconds }
  }
}

async function joinedAgents(): Promise<ReadonlySet<string>> {
  const { agents } = await server.local.client(AgentDefinition).listAgents({})
  return new Set(agents.map(({ id }) => `spiffe://${id?.trustDomain}${id?.path}`))
}

/** Starts an agent until it has joined, and kills it. Its identity has to be on disk by then. */
async function joinedSince(
  known: ReadonlySet<string>,
  start: () => Promise<Started>,
): Promise<SpiffeId> {
  const { child } = await start()
  const id = await eventually(
    async () => [...(await joinedAgents())].find((each) => !known.has(each)),
    'the agent',
    25,
  )
  await eventually(
    () =>
      existsSync(join(String(child.spawnargs.at(-1)), '../data/agent-identity.json'))
        ? true
        : undefined,
    'its identity',
    25,
  )
  await killed(child)
  return parseSpiffeId(id)
}

async function killed(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

/** When an SVID was served; undefined: none was. */
async function oneSvid(socket: string): Promise<number | undefined> {
  using connection = connectUnix(socket, { clock: new SystemClock() })
  const client = connection.client(SpiffeWorkloadAPIDefinition)
  try {
    for await (const { svids } of client.fetchX509SVID({}, { metadata })) {
      if (svids.length > 0) return new SystemClock().now().epochMilliseconds
    }
  } catch {
    // Not there yet.
  }
  return undefined
}
