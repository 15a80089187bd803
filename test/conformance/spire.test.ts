// SPIRE's own programs, unmodified, against ours. They are taken from the directory that ASSAY_SPIRE_BIN names.
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Daemon } from '../support/daemon.ts'
import { finished, Installation, output } from '../support/installation.ts'

const binaries = process.env['ASSAY_SPIRE_BIN']
const skip =
  binaries === undefined
    ? 'ASSAY_SPIRE_BIN names no directory with spire-server and spire-agent'
    : false
const spireServer = `${binaries}/spire-server`
const spireAgent = `${binaries}/spire-agent`
const uid = process.getuid?.() ?? 0

/** What SPIRE’s agent is started with. */
function agentConfiguration(assay: Installation, port: number): string {
  return `agent {
  data_dir = "${assay.at('spire')}"
  server_address = "127.0.0.1"
  server_port = "${port}"
  socket_path = "${assay.at('spire-public/api.sock')}"
  trust_bundle_path = "${assay.at('bundle.pem')}"
  trust_domain = "${assay.trustDomain}"
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`
}

/** A SPIRE agent that serves one workload, of a server of ours. */
async function startSpireAgent(assay: Installation) {
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  writeFileSync(assay.at('bundle.pem'), await assay.assay('bundle', 'show', ...assay.atServer()))
  for (const name of ['spire', 'spire-public']) mkdirSync(assay.at(name))
  writeFileSync(assay.at('agent.conf'), agentConfiguration(assay, assay.serverPort))
  const parent = assay.id(`/spire/agent/join_token/${token}`)
  await assay.createEntry(parent, assay.id('/me'), `unix:uid:${uid}`)
  const command = [spireAgent, 'run', '-config', assay.at('agent.conf'), '-joinToken', token]
  const agent = new Daemon('spire-agent', [spireAgent, ...command.slice(1)], {
    log: assay.at('spire-agent.log'),
  })
  const socket = ['-socketPath', assay.at('spire-public/api.sock')]
  await agent.waitUntil(
    async () => (await finished(spireAgent, ['api', 'fetch', 'x509', ...socket])).status === 0,
  )
  return { agent, socket, nodeName: token }
}

test("SPIRE's agent joins our server and serves its workloads", { skip }, async () => {
  await using assay = new Installation()
  await assay.startServer('memory')
  const { agent, socket } = await startSpireAgent(assay)
  await using _agent = agent
  const x509 = await output(spireAgent, ['api', 'fetch', 'x509', ...socket])
  assert.match(x509, new RegExp(`SPIFFE ID:\\s+${assay.id('/me')}`))
  const jwt = await output(spireAgent, ['api', 'fetch', 'jwt', '-audience', 'payments', ...socket])
  assert.match(jwt, new RegExp(`token\\(${assay.id('/me')}\\)`))
  assert.match(await output(spireAgent, ['healthcheck', ...socket]), /healthy/)
})

test("a rotation waits for SPIRE's agent, which replaces what the old authority signed", {
  skip,
}, async () => {
  await using assay = new Installation()
  await assay.startServer('memory', 'replacement_spread: 0s\n')
  const { agent, socket } = await startSpireAgent(assay)
  await using _agent = agent
  const startMs = performance.now()
  const steps = (
    await assay.assay('hsm', 'rotate', 'x509', '--retire', '--json', ...assay.atServer())
  )
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { step: string; nodes: number; nodes_done: number })
  const waits = steps.filter(({ step }) => step === 'propagating')
  assert.deepEqual(
    [waits[0]?.nodes, waits[0]?.nodes_done, waits.at(-1)?.nodes_done],
    [1, 0, 1],
    'it counts once it has come back for the next bundle',
  )
  assert.ok(steps.some(({ step, nodes }) => step === 'replacing' && nodes === 1))
  assert.equal(steps.at(-1)?.step, 'done')
  assert.ok(performance.now() - startMs < 60_000, 'it need not wait until the SVIDs expire')
  const [key] = (await assay.ask('authority', 'show', 'x509')) as { authority_id: string }[]
  await output(spireAgent, ['api', 'fetch', 'x509', '-write', assay.at('spire'), ...socket])
  const text = await output('openssl', [
    'x509',
    '-in',
    assay.at('spire/svid.0.pem'),
    '-noout',
    '-text',
  ])
  const issuer = /Authority Key Identifier:\s+(?:keyid:)?([0-9A-F:]+)/.exec(text)?.[1] ?? ''
  assert.equal(issuer.replaceAll(':', '').toLowerCase(), key?.authority_id)
  assert.match(await output(spireAgent, ['healthcheck', ...socket]), /healthy/)
})

test("SPIRE's command line administers our server", { skip }, async () => {
  await using assay = new Installation()
  await assay.startServer('memory')
  const socket = ['-socketPath', assay.at('server.sock')]
  const spire = (...args: readonly string[]): Promise<string> =>
    output(spireServer, [...args, ...socket])
  assert.match(await spire('healthcheck'), /healthy/)
  const entry = [
    '-parentID',
    assay.id('/parent'),
    '-spiffeID',
    assay.id('/web'),
    '-selector',
    'unix:uid:7',
  ]
  assert.match(await spire('entry', 'create', ...entry, '-dns', 'web.example'), /Entry ID/)
  assert.match(await spire('entry', 'show', '-selector', 'unix:uid:7'), /web\.example/)
  assert.match(await spire('entry', 'count'), /1 registration entry/)
  assert.match(await spire('agent', 'list'), /No attested agents/)
  assert.match(await spire('bundle', 'show'), /BEGIN CERTIFICATE/)
  assert.match(await spire('x509', 'mint', '-spiffeID', assay.id('/mint')), /X509-SVID/)
  assert.match(await spire('jwt', 'mint', '-spiffeID', assay.id('/mint'), '-audience', 'a'), /^eyJ/)
  assert.match(await spire('localauthority', 'x509', 'show'), /Active X\.509 authority/)
  for (const kind of ['x509', 'jwt']) {
    const authority = (...args: readonly string[]): Promise<string> =>
      spire('localauthority', kind, ...args)
    const idOf = (text: string): string => /Authority ID: (\S+)/.exec(text)?.[1] ?? ''
    const old = idOf(await authority('show'))
    const prepared = idOf(await authority('prepare'))
    assert.equal(idOf(await authority('activate', '-authorityID', prepared)), prepared)
    assert.equal(idOf(await authority('taint', '-authorityID', old)), old)
    assert.equal(idOf(await authority('revoke', '-authorityID', old)), old)
    assert.doesNotMatch(await authority('show'), new RegExp(old))
  }
})

test("our agent joins SPIRE's server and serves its workloads", { skip }, async () => {
  await using assay = new Installation()
  const port = 20_000 + (process.pid % 10_000)
  mkdirSync(assay.at('spire'))
  writeFileSync(
    assay.at('server.conf'),
    `server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  trust_domain = "${assay.trustDomain}"
  data_dir = "${assay.at('spire')}"
  socket_path = "${assay.at('spire/api.sock')}"
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "${assay.at('spire/db')}" } }
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
}
`,
  )
  const command = [spireServer, 'run', '-config', assay.at('server.conf')] as const
  await using server = new Daemon('spire-server', [...command], {
    log: assay.at('spire-server.log'),
  })
  const socket = ['-socketPath', assay.at('spire/api.sock')]
  await server.waitUntil(
    async () => (await finished(spireServer, ['healthcheck', ...socket])).status === 0,
  )
  const [, token = ''] =
    /Token: (\S+)/.exec(await output(spireServer, ['token', 'generate', ...socket])) ?? []
  const entry = [
    '-parentID',
    assay.id(`/spire/agent/join_token/${token}`),
    '-spiffeID',
    assay.id('/me'),
  ]
  await output(spireServer, [
    'entry',
    'create',
    ...entry,
    '-selector',
    `unix:uid:${uid}`,
    ...socket,
  ])
  writeFileSync(assay.at('bundle.pem'), await output(spireServer, ['bundle', 'show', ...socket]))
  writeFileSync(
    assay.at('agent.yaml'),
    `trust_domain: ${assay.trustDomain}
data_dir: ${assay.at('agent')}
server_address: 127.0.0.1
server_port: ${port}
trust_bundle_path: ${assay.at('bundle.pem')}
socket_path: ${assay.workloadSocket}
admin_socket_path: ${assay.at('admin/admin.sock')}
node_attestor: { join_token: { token: ${token} } }
workload_attestors: { unix: {} }
`,
  )
  const program = new URL('../../bin/assay-agent', import.meta.url).pathname
  const run = [program, 'run', '--config', assay.at('agent.yaml')] as const
  await using agent = new Daemon('assay-agent', [...run], { log: assay.at('assay-agent.log') })
  const fetched = async () => assay.tryAssay('fetch', 'x509', '--json', ...assay.atAgent())
  await agent.waitUntil(
    async () => existsSync(assay.workloadSocket) && (await fetched()).status === 0,
  )
  assert.equal(JSON.parse((await fetched()).stdout).svids[0].spiffe_id, assay.id('/me'))
})

/** SPIRE's server as one below another, which it reaches with the SVID that the agent at `agentSocket` gives it. */
function nestedServerConfiguration(assay: Installation, agentSocket: string): string {
  return `server {
  bind_address = "127.0.0.1"
  bind_port = "0"
  socket_path = "${assay.at('nested/server.sock')}"
  trust_domain = "${assay.trustDomain}"
  data_dir = "${assay.at('nested')}"
  ca_ttl = "1h"
  default_x509_svid_ttl = "10m"
}
plugins {
  DataStore "sql" {
    plugin_data { database_type = "sqlite3", connection_string = "${assay.at('nested/datastore.sqlite3')}" }
  }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  UpstreamAuthority "spire" {
    plugin_data {
      server_address = "127.0.0.1"
      server_port = "${assay.serverPort}"
      workload_api_socket = "${agentSocket}"
    }
  }
}
`
}

test("SPIRE's server runs below ours, and what it signs is verified with our bundle", {
  skip,
}, async () => {
  await using assay = new Installation()
  await assay.startServer('memory')
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  await assay.startAgent(`join_token: { token: ${token} }`)
  const [node] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  const selector = `unix:uid:${uid}`
  await assay.createEntry(node?.id ?? '', assay.id('/nested'), selector, '--downstream')
  mkdirSync(assay.at('nested'))
  writeFileSync(assay.at('nested.conf'), nestedServerConfiguration(assay, assay.workloadSocket))
  await using nested = new Daemon(
    'spire-server',
    [spireServer, 'run', '-config', assay.at('nested.conf')],
    { log: assay.at('nested.log') },
  )
  const socket = ['-socketPath', assay.at('nested/server.sock')]
  await nested.waitUntil(
    async () => (await finished(spireServer, ['healthcheck', ...socket])).status === 0,
  )
  const minted = ['x509', 'mint', '-spiffeID', assay.id('/below'), '-write', assay.at('nested')]
  await output(spireServer, [...minted, ...socket])
  writeFileSync(assay.at('bundle.pem'), await assay.assay('bundle', 'show', ...assay.atServer()))
  const chain = assay.at('nested/svid.pem')
  const verify = ['verify', '-x509_strict', '-CAfile', assay.at('bundle.pem'), '-untrusted', chain]
  assert.match(await output('openssl', [...verify, chain]), /OK/)
  const jwt = ['jwt', 'mint', '-spiffeID', assay.id('/below'), '-audience', 'a', ...socket]
  const [header = ''] = (await output(spireServer, jwt)).split('.')
  const { kid } = JSON.parse(Buffer.from(header, 'base64url').toString()) as { kid: string }
  const ours = await assay.assay('bundle', 'show', '--format', 'spiffe', ...assay.atServer())
  assert.match(ours, new RegExp(kid), 'its JWT key is published in our bundle')
})
