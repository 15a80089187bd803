// What programs that know only files get: real servers, whose certificates are exchanged while they serve.
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { after, before, test } from 'node:test'
import { Daemon } from '../support/daemon.ts'
import { freePort, Installation } from '../support/installation.ts'
import { eventually } from '../support/live-agent.ts'

const program = new URL('../../bin/assay', import.meta.url).pathname
const installation = new Installation()
const isRoot = process.getuid?.() === 0
const [postgres] = globSync('/usr/lib/postgresql/*/bin/postgres')
const nginx = '/usr/sbin/nginx'
const haproxy = '/usr/sbin/haproxy'
let agentId = ''
let nodeAttestor = ''

before(async () => {
  await installation.startServer('disk')
  const { token } = (await installation.ask('token', 'generate')) as { token: string }
  nodeAttestor = `join_token: { token: ${token} }`
  await installation.startAgent(nodeAttestor)
  agentId = installation.id(`/spire/agent/join_token/${token}`)
})
after(() => installation[Symbol.asyncDispose]())

/** Writes helper.yaml; files go to the directory of the same name. */
function configure(name: string, lines: string): string {
  const file = installation.at(`${name}.yaml`)
  writeFileSync(
    file,
    `agent_address: ${installation.workloadSocket}\ncert_dir: ${installation.at(name)}\n${lines}`,
  )
  return file
}

function startHelper(name: string, lines: string): Daemon {
  const command = [program, 'helper', '--config', configure(name, lines)] as const
  const daemon = new Daemon(name, [...command], { log: installation.at(`${name}.log`) })
  return daemon
}

const has = (daemon: Daemon, text: string): Promise<boolean> =>
  Promise.resolve(readFileSync(daemon.log, 'utf8').includes(text))

let dnsName = 0
/** Has the agent get another certificate for the entry `web`. @returns a name in it. */
async function renew(): Promise<string> {
  const name = `n${++dnsName}.test`
  await installation.assay(
    'entry',
    'update',
    '--entry-id',
    'web',
    '--dns',
    name,
    ...installation.atServer(),
  )
  return name
}

/** The names in the certificate that a server on `port` shows now. */
function shown(port: number, ...options: readonly string[]): string {
  const args = ['s_client', '-connect', `127.0.0.1:${port}`, ...options]
  const input = { input: '', stdio: ['pipe', 'pipe', 'ignore'] as const, timeout: 10_000 }
  try {
    const pem = execFileSync('openssl', args, { ...input, stdio: [...input.stdio] })
    return execFileSync('openssl', ['x509', '-noout', '-ext', 'subjectAltName'], {
      input: pem,
      encoding: 'utf8',
    })
  } catch {
    // It does not listen yet.
    return ''
  }
}

test('assay helper --once is told when there is no identity, with status 4, and writes nothing', async () => {
  const file = configure('none', 'svid_file_name: svid.pem\nsvid_key_file_name: svid.key\n')
  const { status, stderr } = await installation.tryAssay(
    ...['helper', '--config', file, '--once', '--timeout', '1s'],
  )
  assert.equal(status, 4, stderr)
  assert.match(stderr, /^waiting for the agent: .*no identity issued/)
  assert.match(stderr, /^assay: .*no identity issued.*\n?$/m)
  assert.equal(existsSync(installation.at('none/svid.pem')), false)
})

test('assay helper names what is wrong in its file, with line and column, and ends with status 2', async () => {
  const file = configure('wrong', 'svid_fil_name: a\nkey_file_mode: 0640\n')
  const { status, stderr } = await installation.tryAssay('helper', '--config', file, '--validate')
  assert.equal(status, 2)
  assert.match(stderr, /wrong\.yaml:3:1: svid_fil_name: unknown key; did you mean svid_file_name\?/)
  assert.match(stderr, /wrong\.yaml:4:16: key_file_mode: is 640; it must be text/)
})

test('assay helper --once writes every kind of file, with its mode, whatever the umask', async () => {
  await installation.createEntry(
    agentId,
    installation.id('/web'),
    `unix:uid:${process.getuid?.()}`,
    ...['--entry-id', 'web', '--dns', 'n0.test'],
  )
  const file = configure(
    'all',
    `svid_file_name: svid.pem
svid_key_file_name: svid.key
svid_and_key_file_name: both.pem
svid_bundle_file_name: bundle.pem
jwt_svids: [{ jwt_audience: db, jwt_svid_file_name: db.jwt }]
jwt_bundle_file_name: jwks.json
key_file_mode: "0640"
`,
  )
  const { status, stdout, stderr } = await installation.tryAssay(
    ...['helper', '--config', file, '--once', '--json'],
  )
  assert.equal(status, 0, stderr)
  const events = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  const written = events.find(({ event }) => event === 'written')
  assert.equal(written.spiffe_id, installation.id('/web'))
  const at = (name: string): string => installation.at(`all/${name}`)
  const modes = written.files.map((name: string) => [
    name,
    (statSync(at(name)).mode & 0o777).toString(8),
  ])
  assert.deepEqual(Object.fromEntries(modes), {
    'db.jwt': '600',
    'bundle.pem': '644',
    'both.pem': '640',
    'svid.key': '640',
    'svid.pem': '644',
    'jwks.json': '644',
  })
  assert.equal(readlinkSync(at('svid.key')), 'current/svid.key')
  execFileSync('openssl', ['verify', '-CAfile', at('bundle.pem'), at('svid.pem')])
  assert.equal(
    readFileSync(at('both.pem'), 'utf8'),
    readFileSync(at('svid.key'), 'utf8') + readFileSync(at('svid.pem'), 'utf8'),
  )
  assert.equal(readFileSync(at('db.jwt'), 'utf8').split('.').length, 3)
  assert.ok(JSON.parse(readFileSync(at('jwks.json'), 'utf8')).keys.length > 0)
})

// systemd's end of sd_notify(3): what comes to the socket until the program ends.
const systemd = `
import os, socket, subprocess, sys
end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); end.bind(sys.argv[1]); end.settimeout(0.2)
program = subprocess.Popen(sys.argv[2:], env={**os.environ, 'NOTIFY_SOCKET': sys.argv[1]}, stderr=subprocess.DEVNULL)
while True:
  over = program.poll() is not None
  try: print(end.recv(4096).decode(), flush=True)
  except TimeoutError:
    if over: break
`

test('assay helper tells systemd whose the files are, and that they are there', () => {
  const helper = [program, 'helper', '--config', configure('notify', 'svid_file_name: svid.pem\n')]
  const args = ['-c', systemd, installation.at('notify.sock'), ...helper, '--once']
  const told = execFileSync('python3', args, { encoding: 'utf8', timeout: 20_000 }).split('\n')
  const state = told.findIndex((line) => /^STATUS=spiffe:\/\/example\.org\/web until 2/.test(line))
  const ready = told.indexOf('READY=1')
  assert.ok(state >= 0 && ready > state, told.join())
  assert.ok(told.includes('STOPPING=1'))
  assert.ok(existsSync(installation.at('notify/svid.pem')))
})

test('assay helper gets through a restart of the agent, and ends with status 0 at SIGTERM', async () => {
  const child = spawn(program, [
    'helper',
    '--config',
    configure('restart', 'svid_file_name: svid.pem\n'),
  ])
  child.stderr.setEncoding('utf8')
  let said = ''
  child.stderr.on('data', (text: string) => {
    said += text
  })
  const comes = (text: string) => eventually(() => said.includes(text) || undefined, text, 20)
  await comes('wrote svid.pem')
  await installation.daemons.find(({ name }) => name === 'assay-agent')?.[Symbol.asyncDispose]()
  await comes('waiting for the agent: ')
  const certificate = readFileSync(installation.at('restart/svid.pem'), 'utf8')
  await installation.startAgent(nodeAttestor)
  await eventually(
    () => readFileSync(installation.at('restart/svid.pem'), 'utf8') !== certificate || undefined,
    'another certificate',
    20,
  )
  child.kill('SIGTERM')
  assert.deepEqual(await once(child, 'close'), [0, null])
})

test('assay helper reloads PostgreSQL, which shows the new certificate while a client stays', {
  skip: postgres === undefined ? 'PostgreSQL is not installed' : !isRoot && 'needs root',
}, async () => {
  const bin = (postgres ?? '').replace(/\/postgres$/, '')
  const [uid, gid] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, 'postgres'])))
  const data = installation.at('pgdata')
  mkdirSync(data)
  execFileSync('chown', ['postgres:', data])
  const asPostgres = { uid: uid ?? 0, gid: gid ?? 0, cwd: '/' }
  execFileSync(`${bin}/initdb`, ['-D', data, '-A', 'trust', '-N', '--no-locale'], asPostgres)
  await using helper = startHelper(
    'postgresql',
    `svid_file_name: svid.pem
svid_key_file_name: svid.key
svid_bundle_file_name: bundle.pem
owner: postgres
pid_file_name: ${data}/postmaster.pid
`,
  )
  await helper.waitUntil(() => has(helper, 'its program does not run'))
  const port = await freePort()
  const at = (name: string): string => installation.at(`postgresql/${name}`)
  const options = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    fsync: 'off',
    ssl: 'on',
    ssl_cert_file: at('svid.pem'),
    ssl_key_file: at('svid.key'),
    ssl_ca_file: at('bundle.pem'),
  }
  const args = Object.entries(options).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const server = spawn(`${bin}/postgres`, ['-D', data, ...args], { ...asPostgres, stdio: 'ignore' })
  const exited = once(server, 'exit')
  let client: ChildProcess | undefined
  try {
    const names = (): string => shown(port, '-starttls', 'postgres')
    await eventually(() => names() || undefined, 'PostgreSQL', 50)
    const url = `host=127.0.0.1 port=${port} user=postgres dbname=postgres sslmode=verify-ca sslrootcert=${at('bundle.pem')}`
    const psql = spawn(`${bin}/psql`, ['-XAtq', url], { stdio: ['pipe', 'pipe', 'inherit'] })
    client = psql
    psql.stdout.setEncoding('utf8')
    const ask = async (query: string): Promise<string> => {
      psql.stdin.write(`${query};\n`)
      const [answer] = (await once(psql.stdout, 'data')) as [string]
      return answer.trim()
    }
    const query = 'select pg_backend_pid(), ssl from pg_stat_ssl where pid = pg_backend_pid()'
    const first = await ask(query)
    assert.match(first, /^\d+\|t$/)
    for (let rotation = 0; rotation < 2; rotation++) {
      const name = await renew()
      await eventually(() => names().includes(name) || undefined, `a certificate for ${name}`, 50)
      assert.equal(await ask(query), first)
    }
    assert.match(readFileSync(helper.log, 'utf8'), /sent SIGHUP to process \d+/)
  } finally {
    client?.kill()
    server.kill('SIGINT')
    await exited
  }
})

test('assay helper reloads nginx', {
  skip: !existsSync(nginx) ? 'nginx is not installed' : !isRoot && 'needs root',
}, async () => {
  const port = await freePort()
  const pidFile = installation.at('nginx.pid')
  await using helper = startHelper(
    'nginx',
    `svid_file_name: svid.pem
svid_key_file_name: svid.key
pid_file_name: ${pidFile}
`,
  )
  await helper.waitUntil(() => has(helper, 'wrote svid.key'))
  writeFileSync(
    installation.at('nginx.conf'),
    `daemon off; pid ${pidFile}; error_log ${installation.at('nginx-error.log')};
events {}
http { access_log off; server { listen 127.0.0.1:${port} ssl;
  ssl_certificate ${installation.at('nginx/svid.pem')}; ssl_certificate_key ${installation.at('nginx/svid.key')}; } }
`,
  )
  await using server = new Daemon('nginx', [nginx, '-c', installation.at('nginx.conf')], {
    log: installation.at('nginx-process.log'),
  })
  await server.waitUntil(async () => shown(port) !== '')
  const name = await renew()
  await eventually(() => shown(port).includes(name) || undefined, `a certificate for ${name}`, 50)
})

test('assay helper reloads HAProxy, from one file with key and certificate', {
  skip: !existsSync(haproxy) ? 'HAProxy is not installed' : !isRoot && 'needs root',
}, async () => {
  const port = await freePort()
  const pidFile = installation.at('haproxy.pid')
  await using helper = startHelper(
    'haproxy',
    `svid_and_key_file_name: server.pem
pid_file_name: ${pidFile}
renew_signal: SIGUSR2
`,
  )
  await helper.waitUntil(() => has(helper, 'wrote server.pem'))
  const config = installation.at('haproxy.cfg')
  writeFileSync(
    config,
    `defaults
  mode tcp
  timeout connect 1s
  timeout client 1s
  timeout server 1s
frontend a
  bind 127.0.0.1:${port} ssl crt ${installation.at('haproxy/server.pem')}
`,
  )
  await using server = new Daemon('haproxy', [haproxy, '-W', '-f', config, '-p', pidFile], {
    log: installation.at('haproxy.log'),
  })
  await server.waitUntil(async () => shown(port) !== '')
  const name = await renew()
  await eventually(() => shown(port).includes(name) || undefined, `a certificate for ${name}`, 50)
})
