// A server that loses its machine: its keys stay in the HSM, and everything else comes from a backup.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { Daemon } from '../support/daemon.ts'
import { Installation } from '../support/installation.ts'
import { eventually } from '../support/live-agent.ts'

const root = new URL('../..', import.meta.url).pathname
const assay = new Installation()
const backup = assay.at('assay.backup')
const own = ['--selector', `unix:uid:${process.getuid?.()}`] as const
let server: Daemon
let agentId = ''

before(async () => {
  const fingerprint = await assay.startTpm()
  await assay.makeToken()
  server = await assay.startServer('pkcs11')
  await assay.allowTpm(fingerprint, 'node-1')
  await assay.startAgent()
  const [agent] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  agentId = agent?.id ?? ''
  await assay.createEntry(agentId, assay.id('/web'), own[1], '--entry-id', 'web', '--dns', 'a.test')
})
after(() => assay[Symbol.asyncDispose]())

/** Ends the server and starts it again with the same configuration, on the port that the agent knows. */
async function stopServer(): Promise<void> {
  await server[Symbol.asyncDispose]()
}
async function startServer(): Promise<void> {
  const command = [`${root}bin/assay-server`, 'run', '--config', assay.at('server.yaml')] as const
  server = new Daemon('assay-server', [...command], {
    log: assay.at('again.log'),
    environment: { SOFTHSM2_CONF: assay.at('hsm/softhsm2.conf') },
  })
  assay.daemons.push(server)
  await server.waitUntil(
    async () => (await assay.tryAssay('healthcheck', ...assay.atServer())).status === 0,
  )
}

const restore = (...options: readonly string[]) =>
  assay.tryAssay('restore', backup, '--config', assay.at('server.yaml'), '--json', ...options)

const reasonOf = ({ stderr }: { readonly stderr: string }): string => JSON.parse(stderr).reason

const entries = async (): Promise<readonly { id: string; revision: number }[]> =>
  (await assay.ask('entry', 'list')) as readonly { id: string; revision: number }[]

/** The names in the certificate that this process gets. */
async function ownNames(): Promise<readonly string[]> {
  const said = await assay.tryAssay('fetch', 'x509', '--json', ...assay.atAgent())
  if (said.status !== 0) return []
  const { svids } = JSON.parse(said.stdout) as {
    svids: readonly { dns_names: readonly string[] }[]
  }
  return svids.flatMap((svid) => svid.dns_names)
}

let before_: { bundle: string; serial: string; revision: bigint }

test('assay backup writes a private file without secrets, while the server goes on', async () => {
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  const written = (await assay.ask('backup', backup)) as {
    trust_domain: string
    revision: string
    schema_version: number
  }
  assert.equal(written.trust_domain, assay.trustDomain)
  assert.equal(statSync(backup).mode & 0o777, 0o600)
  const bytes = readFileSync(backup, 'latin1')
  assert.equal(bytes.includes(agentId), true)
  assert.equal(bytes.includes(token), false)
  assert.equal(bytes.includes(readFileSync(assay.at('hsm/pin'), 'utf8').trim()), false)
  assert.equal(bytes.includes('PRIVATE KEY'), false)
  assert.deepEqual(
    readdirSync(assay.at('server')).filter((name) => name.startsWith('snapshot')),
    [],
  )
  const again = await assay.tryAssay('backup', backup, ...assay.atServer())
  assert.equal(again.status, 1)
  assert.match(again.stderr, /it is there; --force replaces it/)
  const [agent] = (await assay.ask('agent', 'list')) as readonly { serial_number: string }[]
  before_ = {
    bundle: await assay.assay('bundle', 'show', ...assay.atServer()),
    serial: agent?.serial_number ?? '',
    revision: BigInt(written.revision),
  }
})

test('assay restore refuses a running server, another trust domain, and data that is there', async () => {
  assert.equal(reasonOf(await restore('--force')), 'datastore-locked')
  await stopServer()
  assert.equal(reasonOf(await restore()), 'data-exists')
  const other = readFileSync(assay.at('server.yaml'), 'utf8').replace(
    'trust_domain: example.org',
    'trust_domain: other.org',
  )
  writeFileSync(assay.at('other.yaml'), other)
  const refused = await assay.tryAssay(
    ...['restore', backup, '--config', assay.at('other.yaml'), '--json'],
  )
  assert.match(refused.stderr, /backup of example\.org: server\.yaml is for other\.org/)
  await startServer()
})

test('after assay restore on a blank machine agents go on as they were, and see no number twice', async () => {
  const update = ['entry', 'update', '--entry-id', 'web', '--dns', 'b.test']
  await assay.assay(...update, ...assay.atServer())
  await assay.createEntry(agentId, assay.id('/late'), own[1], '--entry-id', 'late')
  await eventually(
    async () => ((await ownNames()).includes('b.test') ? true : undefined),
    'b.test',
    20,
  )
  const [newest = 0] = (await entries()).map(({ revision }) => revision)
  await stopServer()
  rmSync(assay.at('server'), { recursive: true })
  const { status, stdout, stderr } = await restore()
  assert.equal(status, 0, stderr)
  const { files, moved_on_by: by } = JSON.parse(stdout)
  for (const file of files) assert.equal(statSync(file).mode & 0o777, 0o600)
  await startServer()
  // What the agent held of a later state is gone, although the number it had was higher.
  await eventually(
    async () => ((await ownNames()).includes('a.test') ? true : undefined),
    'a.test',
    20,
  )
  const now = await entries()
  assert.deepEqual(
    now.map(({ id }) => id),
    ['web'],
  )
  assert.ok((now[0]?.revision ?? 0) > newest)
  assert.equal(await assay.assay('bundle', 'show', ...assay.atServer()), before_.bundle)
  const [agent] = (await assay.ask('agent', 'list')) as readonly { serial_number: string }[]
  assert.equal(agent?.serial_number, before_.serial)
  const after = (await assay.ask('backup', assay.at('second.backup'))) as { revision: string }
  assert.ok(BigInt(after.revision) >= before_.revision + BigInt(by))
})

test('a server whose data went back says so, when an agent knows better', async () => {
  await stopServer()
  const data = assay.at('server')
  for (const name of readdirSync(data)) rmSync(`${data}/${name}`)
  // As by copying files of an older state, and not by assay restore.
  execFileSync('tar', ['-xf', backup, '-C', data])
  await startServer()
  await eventually(
    () => /went back/.test(readFileSync(assay.at('again.log'), 'utf8')) || undefined,
    'the message',
    50,
  )
  assert.match(readFileSync(assay.at('again.log'), 'utf8'), /assay restore/)
})
