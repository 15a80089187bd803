// What people and scripts see of `assay`, against a real server, agent and TPM: texts, JSON, exit statuses, and the
// failures that matter. The last test finds the command that was forgotten here.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import process from 'node:process'
import { after, before, test } from 'node:test'
import { allCommands } from '#cli/catalog.ts'
import { nobody, noOtherUser } from '../support/another-user.ts'
import { type Finished, Installation } from '../support/installation.ts'

const program = new URL('../../bin/assay', import.meta.url).pathname
const installation = new Installation()
const called = new Set<string>()
let environment: Record<string, string> = {}
let fingerprint = ''
let agentId = ''
let nodeAttestor = ''

before(async () => {
  fingerprint = await installation.startTpm()
  await installation.startServer('disk')
  const { token } = (await installation.ask('token', 'generate')) as { token: string }
  nodeAttestor = `join_token: { token: ${token} }`
  await installation.startAgent(nodeAttestor)
  environment = {
    ASSAY_SERVER_SOCKET: installation.at('server.sock'),
    ASSAY_AGENT_ADMIN_SOCKET: installation.at('admin/admin.sock'),
    SPIFFE_ENDPOINT_SOCKET: `unix://${installation.workloadSocket}`,
  }
  agentId = installation.id(`/spire/agent/join_token/${token}`)
})
after(() => installation[Symbol.asyncDispose]())

function start(args: readonly string[], user: { uid?: number; gid?: number } = {}) {
  called.add(`${args.slice(0, 2).join(' ')}${args.includes('--json') ? ' --json' : ''}`)
  called.add(`${args[0]}${args.includes('--json') ? ' --json' : ''}`)
  const env = { ...process.env, ...environment }
  const child = spawn(program, args, { env, ...user })
  child.stdout.setEncoding('utf8')
  child.stderr.setEncoding('utf8')
  // It may end before it has read what it is given.
  child.stdin.on('error', () => {})
  return child
}

/** Runs `assay` to its end. */
async function assay(args: readonly string[], input = ''): Promise<Finished> {
  const child = start(args)
  const said = { stdout: '', stderr: '' }
  child.stdout.on('data', (text: string) => {
    said.stdout += text
  })
  child.stderr.on('data', (text: string) => {
    said.stderr += text
  })
  child.stdin.end(input)
  const [status] = (await once(child, 'close')) as [number | null]
  return { status: status ?? -1, ...said }
}

/** What is different each time gets a name. */
const steady = (text: string): string =>
  text
    .replaceAll(agentId, 'AGENT')
    .replaceAll(fingerprint, 'HASH')
    .replaceAll(installation.directory, 'DIR')
    .replace(/\(in [^)]*\)|\([^)]* ago\)/g, '(DISTANCE)')
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, 'TIME')
    .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, 'UUID')
    .replace(/\b\d{30,}\b/g, 'SERIAL')

/** Runs `assay`, wants status 0, and returns its lines of standard output. */
async function lines(...args: readonly string[]): Promise<readonly string[]> {
  const { status, stdout, stderr } = await assay(args)
  assert.equal(status, 0, stderr)
  return steady(stdout).trimEnd().split('\n')
}

/** Runs `assay … --json`, wants status 0 and nothing on standard error, and returns what it said. */
async function json(args: readonly string[], input = ''): Promise<unknown> {
  const { status, stdout, stderr } = await assay([...args, '--json'], input)
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
  return JSON.parse(stdout)
}

/** Runs `assay` and wants it to fail with `status` and a message. */
async function fails(
  status: number,
  args: readonly string[],
  wanted: { readonly message: RegExp; readonly input?: string },
): Promise<Finished> {
  const finished = await assay(args, wanted.input)
  assert.equal(finished.status, status, finished.stderr)
  assert.match(steady(finished.stderr), wanted.message)
  return finished
}

const createWeb = (...options: readonly string[]): readonly string[] => [
  ...['entry', 'create', '--parent-id', agentId, '--spiffe-id', installation.id('/web')],
  ...['--selector', `unix:uid:${process.getuid?.()}`, ...options],
]

test('a workload without an entry is refused, with status 4, and why says what to do', async () => {
  const refusal = await fails(4, ['fetch', 'x509'], { message: /no identity issued.*\[.*\]/ })
  assert.equal(refusal.stdout, '')
  assert.match(refusal.stderr, /\non this node an operator sees why: assay why --request \S+\n$/)
  await fails(4, ['fetch', 'jwt', '--audience', 'a', '--json'], {
    message: /^\{"error":".*no identity issued.*","code":"permission-denied"/,
  })
  const listed = (await json(['refusal', 'list'])) as { request_id: string; at: string }[]
  assert.match(listed[0]?.at ?? '', /^\d{4}-.*Z$/)
  const table = await lines('refusal', 'list', '--limit', '1')
  assert.match(table[0] ?? '', /^AT +PID +UID +REASON +REQUEST$/)
  assert.match(table[1] ?? '', / no-identity-issued /)
  const why = await assay(['why', '--request', listed[0]?.request_id ?? ''])
  assert.equal(why.status, 4)
  assert.match(why.stdout, /^Process \d+ of user \d+ was refused /)
  assert.match(why.stdout, /^It gets nothing: this node has no entries\.$/m)
})

test('status shows the whole on one screen, and doctor what is wrong', async () => {
  const [first = '', ...rest] = await lines('status')
  assert.match(first, /^Server +example\.org, ready, version /)
  for (const wanted of [
    /^Nodes +1 live, /,
    /^If the server dies now +/,
    /^x509-ca +active/,
    /^Agent +AGENT, ready/,
  ])
    assert.ok(
      rest.some((line) => wanted.test(line)),
      String(wanted),
    )
  const seen = (await json(['status'])) as {
    server: { nodes: { live: number }; without_server: object; authorities: readonly object[] }
    agent: { state: string }
  }
  assert.deepEqual([seen.server.nodes.live, seen.agent.state], [1, 'ready'])
  assert.equal(seen.server.authorities.length, 2)
  const watching = start(['status', '--watch', '--every', '1s', '--json'])
  await once(watching.stdout, 'data')
  await once(watching.stdout, 'data')
  watching.kill('SIGINT')
  assert.deepEqual(await once(watching, 'close'), [130, null])
  await fails(5, ['status', '--socket-path', '/nix'], { message: /is assay-server running\?/ })
  for (const side of ['server', 'agent']) {
    const args = ['doctor', side, '--config', installation.at(`${side}.yaml`)]
    assert.match((await lines(...args)).join('\n'), /^ok +configuration +DIR/)
    assert.equal(((await json(args)) as { problems: number }).problems, 0)
  }
})

test('entry create prints the entry and what is next, and refuses to repeat it', async () => {
  const { status, stdout, stderr } = await assay(
    createWeb('--entry-id', 'web', '--dns', 'web.test'),
  )
  assert.equal(status, 0)
  assert.equal(
    steady(stdout),
    `Entry      web
SPIFFE ID  spiffe://example.org/web
Parent     AGENT
Selector   unix:uid:${process.getuid?.()}
DNS name   web.test
Revision   0
`,
  )
  assert.match(stderr, /^next: .*'assay why --pid PID'/)
  const again = await fails(1, createWeb('--json'), {
    message: /cannot create entry for spiffe:\/\/example.org\/web: .*already exists \(entry web\)/,
  })
  assert.deepEqual(JSON.parse(again.stdout), [])
})

test('entry create says when no agent has attested as the parent, and which have', async () => {
  const args = ['entry', 'create', '--parent-id', installation.id('/spire/agent/tpm/3f9a0c11')]
  const options = ['--spiffe-id', installation.id('/lost'), '--selector', 'unix:usr:www-data']
  const { status, stderr } = await assay([...args, ...options, '--entry-id', 'lost'])
  assert.equal(status, 0)
  assert.match(
    steady(stderr),
    /^note: no process shows the selector unix:usr:www-data; .*\nnote: no agent spiffe:.*\/tpm\/3f9a0c11 has attested yet\n.*\n {2}AGENT\n$/,
  )
  await lines('entry', 'delete', '--entry-id', 'lost')
})

test('entry create refuses wrong values with status 2, and says which', async () => {
  await Promise.all([
    fails(2, ['entry', 'create', '--spiffe-id', 'web', '--selector', 'a:b'], {
      message: /'?web'?/,
    }),
    fails(2, ['entry', 'create', '--spiffe-id', installation.id('/x')], {
      message: /needs at least one --selector TYPE:VALUE/,
    }),
    fails(2, createWeb('--x509-svid-ttl', 'long'), { message: /write a duration such as/ }),
    fails(2, ['entry', 'create', '--data', '-'], { input: '{', message: /it is not JSON/ }),
  ])
})

test('entry create --node names the next step for an alias', async () => {
  const args = ['entry', 'create', '--node', '--spiffe-id', installation.id('/rack/1')]
  const { status, stderr } = await assay([
    ...args,
    '--selector',
    'join_token:x',
    '--entry-id',
    'rack',
  ])
  assert.equal(status, 0)
  assert.equal(stderr, 'next: assay entry create --parent-id spiffe://example.org/rack/1 …\n')
})

test('entry list --json can be given back to entry create', async () => {
  const listed = (await json(['entry', 'list'])) as { id: string; created_at: string }[]
  assert.deepEqual(await lines('entry', 'delete', '--entry-id', 'rack'), ['deleted entry rack'])
  const rack = listed.filter(({ id }) => id === 'rack')
  const made = (await json(['entry', 'create', '--data', '-'], JSON.stringify(rack))) as typeof rack
  // It is another entry all the same.
  const withoutAge = (entries: typeof rack) => entries.map(({ created_at: _, ...entry }) => entry)
  assert.deepEqual(withoutAge(made), withoutAge(rack))
  assert.deepEqual(await json(['entry', 'delete', '--entry-id', 'rack']), { deleted: ['rack'] })
})

test('entry update changes what is given, keeps the rest and clears what is empty', async () => {
  const update = ['entry', 'update', '--entry-id', 'web']
  const first = (await json([...update, '--hint', 'h', '--jwt-svid-include-jti'])) as object
  assert.partialDeepStrictEqual(first, {
    spiffe_id: 'spiffe://example.org/web',
    dns_names: ['web.test'],
    hint: 'h',
    jwt_svid_include_jti: true,
    revision: 1,
  })
  assert.deepEqual(
    await lines(...update, '--hint=', '--dns=', '--disable-x509-svid-prefetch=false'),
    [
      'Entry      web',
      'SPIFFE ID  spiffe://example.org/web',
      'Parent     AGENT',
      `Selector   unix:uid:${process.getuid?.()}`,
      'Flags      jti',
      'Revision   2',
    ],
  )
  await fails(2, update, { message: /needs something to change/ })
  await fails(3, ['entry', 'update', '--entry-id', 'nix', '--hint', 'h'], { message: /nix/ })
})

test('entry show, list and count find entries, and say when there is none', async () => {
  const [shown, none, count, counted] = await Promise.all([
    json(['entry', 'show', '--entry-id', 'web']),
    assay(['entry', 'list', '--spiffe-id', installation.id('/nix')]),
    lines('entry', 'count', '-parentID', agentId),
    json(['entry', 'count']),
  ])
  assert.equal((shown as unknown[]).length, 1)
  assert.deepEqual({ ...none }, { status: 0, stdout: '', stderr: '0 entries\n' })
  assert.deepEqual(count, ['1 entry'])
  assert.deepEqual(counted, { count: 1 })
  await fails(3, ['entry', 'show', '--entry-id', 'nix'], { message: /entry not found: nix/ })
  await fails(3, ['entry', 'delete', '--entry-id', 'nix'], {
    message: /^assay: cannot delete entry nix: not found$/m,
  })
})

test('agent list, show, count and status tell about the node', async () => {
  const [heading = '', row = '', ...more] = await lines('agent', 'list')
  assert.match(heading, /^AGENT +STATE +SVID EXPIRES +VERSION +PQ$/)
  assert.match(row, /^AGENT {2}live(, without the newest bundle)? +TIME \(DISTANCE\) +0\.1\.0 +no$/)
  assert.deepEqual(more, [])
  const shown = (await lines('agent', 'show', '--spiffe-id', agentId)).join('\n')
  assert.match(
    shown,
    /^Agent +AGENT\nAttested by +join_token\nState +(live|live, without the newest bundle)\nSVID serial +SERIAL\n/,
  )
  assert.match(shown, /^Post-quantum +X25519MLKEM768, SVID verified classically alone$/m)
  const [listed, one, count, counted, status, said] = await Promise.all([
    json(['agent', 'list', '--attestation-type', 'join_token']),
    json(['agent', 'show', '--spiffe-id', agentId]),
    lines('agent', 'count'),
    json(['agent', 'count', '--expires-before', '2000-01-01T00:00:00Z']),
    json(['agent', 'status']),
    lines('agent', 'status'),
  ])
  assert.deepEqual(listed, [one])
  assert.match((one as { expires_at: string }).expires_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  assert.deepEqual(count, ['1 agent'])
  assert.deepEqual(counted, { count: 0 })
  assert.partialDeepStrictEqual(status, { state: 'ready', agent_id: agentId, entries: 1 })
  assert.equal(said[0], 'State          ready')
  assert.match(said.join('\n'), /^Bundle +number \d+$/m)
  assert.match(said.join('\n'), /^Report +the server /m)
  assert.match(
    said.join('\n'),
    /^Post-quantum +key agreement X25519MLKEM768, own SVID signed classically alone/m,
  )
  assert.match(
    said.join('\n'),
    /^Authority +[0-9a-f]{40} \(trusted\): \d+ SVIDs?, the last TIME \(DISTANCE\)$/m,
  )
  await fails(3, ['agent', 'show', '--spiffe-id', installation.id('/spire/agent/join_token/nix')], {
    message: /assay: .*join_token\/nix/,
  })
  await fails(2, ['agent', 'list', '--expires-before', 'soon'], { message: /write a time such as/ })
})

test('token generate prints the token alone, and its end in RFC 3339', async () => {
  const { stdout, stderr } = await assay(['token', 'generate'])
  assert.match(stdout, /^[0-9a-f-]{36}\n$/)
  assert.match(steady(stderr), /^for one agent, until TIME \(DISTANCE\)\n.*token_file/)
  const made = (await json([
    'token',
    'generate',
    '--ttl',
    '1h',
    '--spiffe-id',
    installation.id('/n'),
  ])) as object
  assert.deepEqual(Object.keys(made), ['token', 'expires_at'])
  assert.match((made as { expires_at: string }).expires_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
})

test('fetch x509 shows the identity, and writes files that only their user can read', async () => {
  assert.deepEqual(await lines('fetch', 'x509'), [
    'SPIFFE ID    spiffe://example.org/web',
    'Serial       SERIAL',
    'Valid from   TIME',
    'Valid until  TIME (DISTANCE)',
    'Chain        leaf only',
    '',
    'Bundle of example.org  1 authority',
  ])
  const directory = installation.at('svids')
  const said = (await json(['fetch', 'x509', '--write', directory])) as {
    svids: object[]
    written: string[]
  }
  assert.partialDeepStrictEqual(said.svids[0], { spiffe_id: 'spiffe://example.org/web' })
  assert.deepEqual(said.written.map(steady), [
    'DIR/svids/svid.0.key',
    'DIR/svids/svid.0.pem',
    'DIR/svids/bundle.0.pem',
  ])
  assert.equal(statSync(`${directory}/svid.0.key`).mode & 0o777, 0o600)
  assert.deepEqual(readdirSync(directory).sort(), ['bundle.0.pem', 'svid.0.key', 'svid.0.pem'])
})

test('fetch jwt makes a token that validate jwt takes from standard input or a file', async () => {
  const [svid] = (await json(['fetch', 'jwt', '--audience', 'db'])) as {
    token: string
    expires_at: string
  }[]
  assert.match(svid?.expires_at ?? '', /Z$/)
  const token = svid?.token ?? ''
  const file = installation.at('token')
  writeFileSync(file, `${token}\n`)
  const valid = (await json(['validate', 'jwt', '--audience', 'db'], token)) as {
    spiffe_id: string
  }
  assert.equal(valid.spiffe_id, 'spiffe://example.org/web')
  const validate = ['validate', 'jwt', '--audience', 'db', '--svid-file', file]
  assert.equal((await lines(...validate))[0], 'valid: spiffe://example.org/web')
  const text = await lines('fetch', 'jwt', '--audience', 'db')
  assert.equal(text[0], 'spiffe://example.org/web, until TIME (DISTANCE)')
  await fails(2, ['validate', 'jwt', '--audience', 'db'], { message: /the token is empty/ })
  await fails(2, [...validate, '--svid', token], { message: /not by both/ })
  const garbage = await assay(['validate', 'jwt', '--audience', 'db', '--svid-file', '-'], 'a.b.c')
  assert.equal(garbage.status, 2, garbage.stderr)
})

test('fetch bundle prints PEM or JWK sets', async () => {
  const [pem, records, jwks, keys] = await Promise.all([
    lines('fetch', 'bundle'),
    json(['fetch', 'bundle']),
    lines('fetch', 'bundle', '--format', 'jwt'),
    json(['fetch', 'bundle', '--format', 'jwt']),
  ])
  assert.equal(pem[0], '-----BEGIN CERTIFICATE-----')
  assert.deepEqual(Object.keys(records as object), ['example.org'])
  assert.equal(jwks[0], 'example.org')
  assert.equal((keys as { 'example.org': { keys: unknown[] } })['example.org'].keys.length, 1)
  await fails(2, ['fetch', 'bundle', '--format', 'der'], { message: /one of x509, jwt/ })
})

test('why explains a process and a user, and a process that does not run', async () => {
  const explained = (await json(['why', '--pid', String(process.pid)])) as { matches: object[] }
  assert.partialDeepStrictEqual(explained.matches[0], { entry_id: 'web' })
  const text = (await lines('why', '--pid', String(process.pid))).join('\n')
  assert.match(text, /^It shows:\n {2}unix:/)
  assert.match(text, /It gets:\n {2}spiffe:\/\/example.org\/web\n {4}entry web, SVID until TIME/)
  const unknown = await assay(['why', '--user', 'nobody'])
  assert.equal(unknown.status, 4)
  assert.match(unknown.stdout, /no entry of this node matches \(it has 1\)/)
  assert.match(unknown.stdout, / {4}entry web\n {4}lacks unix:uid:/)
  await fails(3, ['why', '--pid', '2147483647'], { message: /process 2147483647: .*not running/ })
  await fails(3, ['why', '--request', 'nix'], { message: /no refusal of request nix/ })
  await fails(2, ['why'], { message: /needs one of --pid, --user and --request/ })
  await fails(2, ['why', '--pid', '0'], { message: /whole number from 1/ })
})

test('watch prints each update, and ends at once and with 130 when it is interrupted', async () => {
  const child = start(['watch', '--json'])
  const [line] = (await once(child.stdout, 'data')) as [string]
  assert.deepEqual(Object.keys(JSON.parse(line)), ['at', 'svids', 'bundles'])
  const interrupted = performance.now()
  child.kill('SIGINT')
  assert.deepEqual(await once(child, 'close'), [130, null])
  assert.ok(performance.now() - interrupted < 1000)
})

test('watch outlives a restart of the agent, and says so', async () => {
  const child = start(['watch', '--json'])
  let said = ''
  child.stderr.on('data', (text: string) => {
    said += text
  })
  await once(child.stdout, 'data')
  const agent = installation.daemons.find(({ name }) => name === 'assay-agent')
  const update = once(child.stdout, 'data')
  await agent?.[Symbol.asyncDispose]()
  while (!said.includes('is away')) await once(child.stderr, 'data')
  await installation.startAgent(nodeAttestor)
  const [line] = (await update) as [string]
  assert.deepEqual(Object.keys(JSON.parse(line)), ['at', 'svids', 'bundles'])
  child.kill('SIGINT')
  await once(child, 'close')
  assert.match(said, /^the agent is away, trying again: .*\nthe agent is back\n$/)
})

test('watch ends quietly once its reader has gone', async () => {
  const child = start(['watch'])
  const [text] = (await once(child.stdout, 'data')) as [string]
  assert.match(text, /^── \d{4}-/)
  child.stdout.destroy()
  const closed = once(child, 'close')
  // The next update is the first that cannot be written.
  await assay(['entry', 'update', '--entry-id', 'web', '--dns', 'again.test'])
  assert.deepEqual(await closed, [0, null])
})

test('console prints a link, serves what it names, and ends with 130 when it is interrupted', async () => {
  for (const [args, link] of [
    [[], /^(http:\/\/127\.0\.0\.1:\d+\/)#[\w-]{43}\n$/],
    [['--json'], /^\{"url":"(http:\/\/127\.0\.0\.1:\d+\/)#[\w-]{43}"\}\n$/],
  ] as const) {
    const child = start(['console', ...args])
    const [text] = (await once(child.stdout, 'data')) as [string]
    const [, address = ''] = link.exec(text) ?? []
    assert.match(await (await fetch(address)).text(), /<title>Assay<\/title>/)
    assert.equal((await fetch(`${address}events`)).status, 401)
    child.kill('SIGINT')
    assert.deepEqual(await once(child, 'close'), [130, null])
  }
  await fails(2, ['console', '--port', '70000'], { message: /at most 65535/ })
})

test('bundle show, set, list and delete', async () => {
  const shown = await lines('bundle', 'show')
  assert.equal(shown[0], '-----BEGIN CERTIFICATE-----')
  const document = await json(['bundle', 'show'])
  const input = JSON.stringify(document)
  const set = ['bundle', 'set', '--trust-domain', 'other.org']
  assert.deepEqual(await json([...set, '--format', 'spiffe'], input), {
    set: 'other.org',
    x509_authorities: 1,
    jwt_authorities: 1,
  })
  const again = await assay(set, `${shown.join('\n')}\n`)
  assert.equal(again.stdout, 'set the bundle of other.org: 1 X.509 authority, 0 JWT keys\n')
  assert.match(again.stderr, /^next: .*--federates-with other.org/)
  assert.equal((await lines('bundle', 'list'))[0], '# other.org')
  assert.deepEqual(Object.keys((await json(['bundle', 'list'])) as object), ['other.org'])
  const remove = ['bundle', 'delete', '--trust-domain', 'other.org']
  assert.deepEqual(await lines(...remove), ['deleted the bundle of other.org'])
  await fails(3, [...remove, '--json'], { message: /"code":"not-found"/ })
  await fails(3, ['bundle', 'list', '--trust-domain', 'other.org'], { message: /other\.org/ })
})

test('bundle set refuses garbage, an empty bundle and a file that is not there, with status 2', async () => {
  const set = ['bundle', 'set', '--trust-domain', 'other.org']
  const spiffe = [...set, '--format', 'spiffe']
  await Promise.all([
    fails(2, set, { input: 'garbage', message: /it holds no CERTIFICATE block/ }),
    fails(2, spiffe, { input: 'garbage', message: /assay: / }),
    fails(2, spiffe, {
      input: '{"keys":[]}',
      message: /holds no authority.*'assay bundle delete'/,
    }),
    fails(2, [...set, '--path', '/nix'], { message: /cannot read \/nix: there is no such file/ }),
    fails(2, ['bundle', 'set', '--trust-domain', 'Other!', '--path', '/nix'], {
      message: /Other!/,
    }),
  ])
})

test('x509 mint and jwt mint make SVIDs of any identity of the trust domain', async () => {
  const directory = installation.at('minted')
  mkdirSync(directory)
  writeFileSync(`${directory}/key.pem`, 'open to all', { mode: 0o666 })
  const mint = ['x509', 'mint', '--spiffe-id', installation.id('/db')]
  const written = (await json([...mint, '--ttl', '5m', '--write', directory])) as object
  assert.deepEqual(Object.keys(written), ['spiffe_id', 'expires_at', 'written'])
  assert.equal(statSync(`${directory}/key.pem`).mode & 0o777, 0o600)
  const printed = (await lines(...mint)).join('\n')
  assert.match(printed, /^-----BEGIN CERTIFICATE-----.*BEGIN PRIVATE KEY.*BEGIN CERTIFICATE/s)
  const jwt = ['jwt', 'mint', '--spiffe-id', installation.id('/db'), '--audience', 'a']
  assert.match((await lines(...jwt)).join(), /^[\w-]+\.[\w-]+\.[\w-]+$/)
  assert.deepEqual(Object.keys((await json(jwt)) as object), ['token', 'expires_at'])
  await fails(2, ['x509', 'mint', '--spiffe-id', 'spiffe://other.org/db'], {
    message: /other\.org/,
  })
})

test('x509 inspect says what certificates are, and exits with 4 when the bundle does not vouch for them', async () => {
  const directory = installation.at('inspected')
  mkdirSync(directory)
  await json(['x509', 'mint', '--spiffe-id', installation.id('/db'), '--write', directory])
  const [svid, bundle] = ['svid.pem', 'bundle.pem'].map((name) => `${directory}/${name}`)
  assert.ok(svid && bundle)
  const said = (await lines('x509', 'inspect', svid, '--bundle', bundle)).join('\n')
  assert.match(said, /^SPIFFE ID +spiffe:\/\/\S+\/db\n/)
  assert.match(said, /^Verified +yes, by C=US, O=SPIFFE/m)
  assert.match(said, /^Verified PQ +no: there is no post-quantum signature$/m)
  const [inspected] = (await json(['x509', 'inspect', '--bundle', bundle, svid])) as object[]
  assert.partialDeepStrictEqual(inspected, {
    spiffe_id: installation.id('/db'),
    ca: false,
    key: 'P-256',
    verification: { classical: 'verified', pq: 'absent' },
  })
  const strict = await assay(['x509', 'inspect', svid, '--bundle', bundle, '--pq-policy=require'])
  assert.equal(strict.status, 4)
  await fails(2, ['x509', 'inspect', '/nix'], { message: /cannot read \/nix/ })
  await fails(2, ['x509', 'inspect', `${directory}/key.pem`], { message: /no PEM block CERTIF/ })
  await fails(2, ['x509', 'inspect'], { message: /needs a FILE/ })
})

test('tpm show, fingerprint and doctor tell about the TPM; a missing one is unhealthy, status 6', async () => {
  const tcti = ['--tcti', installation.tcti]
  const shown = (await lines('tpm', 'show', ...tcti)).join('\n')
  assert.match(shown, /^TPM +swtpm:path=DIR\/tpm\/sock\nMaker +/)
  assert.match(shown, /^Endorsement key +HASH \(/m)
  assert.deepEqual(await lines('tpm', 'fingerprint', ...tcti), ['HASH'])
  assert.deepEqual(await json(['tpm', 'fingerprint', ...tcti]), {
    endorsement_key_hash: fingerprint,
  })
  assert.partialDeepStrictEqual(await json(['tpm', 'show', ...tcti]), {
    endorsement_key_hash: fingerprint,
  })
  assert.partialDeepStrictEqual(await json(['tpm', 'doctor', ...tcti]), { ok: true, advice: [] })
  const doctor = await assay(['tpm', 'doctor', '--tcti', 'swtpm:path=/nix'])
  assert.equal(doctor.status, 6)
  assert.match(doctor.stdout, /^An agent cannot attest with this TPM: .*\nSeen: .*\nRemedy: .*\n$/)
})

test('inventory import takes all lines or none; approve, deny and ban take the beginning of a hash', async () => {
  const file = installation.at('inventory.csv')
  writeFileSync(file, `endorsement_key_hash,node_name\r\n${fingerprint},n001\r\n`)
  const importing = ['inventory', 'import']
  assert.deepEqual(await lines(...importing, '--dry-run', file), [
    'would import 1 TPM: 1 new, 0 changed, 0 as before',
  ])
  assert.deepEqual(await json([...importing, '-'], `${fingerprint},n001`), {
    created: 1,
    updated: 0,
    unchanged: 0,
    dry_run: false,
  })
  await fails(2, [...importing, '-'], {
    input: `${'0'.repeat(64)},ok\nbeef,n2\n`,
    message: /nothing was imported:.*\nstandard input:2: 'beef' is no endorsement key hash/,
  })
  assert.deepEqual(await lines('inventory', 'list'), [
    `${'ENDORSEMENT KEY'.padEnd(64)}  STATE    NODE  ADDRESS  LAST SEEN  WHAT IT SAYS IT IS`,
    'HASH  allowed  n001           never',
  ])
  const short = fingerprint.slice(0, 8)
  await fails(1, ['inventory', 'deny', short], { message: /it is allowed already; ban it instead/ })
  assert.deepEqual(await lines('inventory', 'ban', short), ['banned HASH (n001)'])
  assert.deepEqual(await lines('inventory', 'deny', short), ['denied HASH (n001)'])
  assert.partialDeepStrictEqual(await json(['inventory', 'deny', short]), { state: 'denied' })
  assert.deepEqual(await lines('inventory', 'approve', short), ['approved HASH (n001)'])
  assert.partialDeepStrictEqual(await json(['inventory', 'approve', short, '--node-name', 'n2']), {
    state: 'allowed',
    node_name: 'n2',
  })
  assert.partialDeepStrictEqual(await json(['inventory', 'ban', short]), { state: 'banned' })
  assert.deepEqual(await json(['inventory', 'list', '--state', 'allowed']), [])
  assert.deepEqual(await json(['inventory', 'pending']), [])
  assert.equal((await assay(['inventory', 'pending'])).stderr, '0 TPMs\n')
  await fails(3, ['inventory', 'approve', '00000000'], { message: /00000000/ })
  await fails(2, ['inventory', 'list', '--state', 'lost'], { message: /one of allowed, pending/ })
})

test('hsm status and keys tell about the signing keys of whatever key manager', async () => {
  const status = await lines('hsm', 'status')
  assert.deepEqual(status.slice(0, 2), ['Signing  ok', 'Keys in  disk DIR/server/keys'])
  assert.match(status[2] ?? '', /^Bundle {3}number \d+, held by [01] of 1 live node/)
  assert.match(status[4] ?? '', /^KEY +TYPE +FOR +STATE +AGE +DEPENDS ON IT +NEXT +AUTHORITY$/)
  const [said, keys, table] = await Promise.all([
    json(['hsm', 'status']),
    json(['hsm', 'keys']),
    lines('hsm', 'keys'),
  ])
  assert.deepEqual((said as { keys: unknown }).keys, keys)
  assert.equal(table.length, (keys as unknown[]).length + 1)
  const message = /this key manager has no PIN to try again/
  await fails(1, ['hsm', 'resume'], { message })
  await fails(1, ['hsm', 'resume', '--json'], { message })
  assert.match((await lines('hsm', 'accept-clock'))[0] ?? '', /^accepted TIME$/)
  assert.deepEqual(Object.keys((await json(['hsm', 'accept-clock'])) as object), ['accepted'])
})

test('hsm rotate tells each step, and authority show what has become of them', async () => {
  const before = (await json(['authority', 'show', 'jwt'])) as { authority_id: string }[]
  assert.deepEqual(
    (await lines('hsm', 'rotate', 'jwt', '--force')).map((line) =>
      line.replace(/\b[0-9A-Za-z]{32}\b/g, 'ID'),
    ),
    [
      'jwt: the successor of ID is being made',
      'jwt: ID is made, and published in the bundle',
      'jwt: ID signs now',
      'jwt: done: ID signs',
    ],
  )
  const table = await lines('authority', 'show', 'jwt')
  assert.match(table[0] ?? '', /^KIND +STATE +AUTHORITY +EXPIRES/)
  assert.match(table[1] ?? '', /^jwt +active +/)
  assert.match(table[2] ?? '', /^jwt +old +/)
  assert.ok(table[2]?.includes(before[0]?.authority_id ?? '?'))
  const { stdout } = await assay(['hsm', 'rotate', 'all', '--force', '--retire', '--json'])
  const steps = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { kind: string; step: string })
  const whole = ['begun', 'prepared', 'activated', 'tainted', 'revoked', 'done']
  assert.deepEqual(
    steps.map(({ kind, step }) => `${kind} ${step}`),
    ['x509', 'jwt'].flatMap((kind) => whole.map((step) => `${kind} ${step}`)),
  )
  await fails(2, ['hsm', 'rotate'], { message: /needs a KIND: x509, jwt or all/ })
  await fails(2, ['hsm', 'rotate', 'ssh'], { message: /'ssh' is none/ })
  await fails(2, ['hsm', 'rotate', 'x509', '--force', '--after', '5m'], { message: /exclude/ })
})

test('hsm rotate that waits is left in order, and the same command goes on with it', async () => {
  const child = start(['hsm', 'rotate', 'jwt', '--after', '1h'])
  const said = { stdout: '', stderr: '' }
  child.stderr.on('data', (text: string) => {
    said.stderr += text
  })
  for await (const text of child.stdout) {
    said.stdout += text
    if (said.stdout.includes('waiting until')) break
  }
  child.kill('SIGINT')
  const [status] = (await once(child, 'close')) as [number]
  assert.equal(status, 130)
  assert.match(said.stderr, /the same command goes on with it/)
  const report = (await lines('hsm', 'status')).find((line) => line.startsWith('Rotation'))
  assert.match(report ?? '', /^Rotation +jwt, begun .* is not done: 'assay hsm rotate jwt' goes on/)
  const again = await assay(['hsm', 'rotate', 'jwt', '--after', '0'])
  assert.match(again.stdout, /signs now/)
  assert.match(again.stderr, /^jwt: goes on with the rotation begun at \S+Z$/m)
})

test('authority prepare, activate, taint and revoke are the single steps', async () => {
  const message = /no x509 authority is prepared; 'assay authority prepare x509' makes one/
  await fails(1, ['authority', 'activate', 'x509'], { message })
  for (const kind of ['x509', 'jwt']) {
    const prepared = (await json(['authority', 'prepare', kind])) as { authority_id: string }
    const id = prepared.authority_id
    assert.deepEqual(await lines('authority', 'activate', kind), [`activated ${id}`])
    if (kind === 'x509') {
      const directory = installation.at('minted-before')
      mkdirSync(directory)
      await json(['x509', 'mint', '--spiffe-id', installation.id('/db'), '--write', directory])
    }
    await assay(['authority', 'prepare', kind])
    await json(['authority', 'activate', kind])
    if (kind === 'x509') {
      await fails(1, ['authority', 'revoke', 'x509', '--authority-id', id], {
        message: /minted by hand, or the CA of a downstream server, is valid until/,
      })
    }
    await fails(1, ['authority', 'revoke', kind, '--force'], { message: /must be tainted first/ })
    assert.deepEqual(await lines('authority', 'taint', kind, '--authority-id', id), [
      `tainted ${id}`,
    ])
    const chosen = ['--authority-id', id]
    await fails(1, ['authority', 'taint', kind, ...chosen, '--json'], {
      message: /tainted already/,
    })
    const shown = (await json(['authority', 'show', kind])) as {
      authority_id: string
      state: string
      tainted: boolean
    }[]
    const old = shown.filter(({ state }) => state === 'old')
    assert.ok(old.length > 1, 'each old one is shown')
    assert.deepEqual(
      shown.filter(({ tainted }) => tainted).map(({ authority_id }) => authority_id),
      [id],
    )
    const table = (await lines('authority', 'show', kind)).join('\n')
    assert.equal(table.match(new RegExp(`^${kind} +old`, 'gm'))?.length, old.length)
    assert.match(table, new RegExp(`^${kind} +old, tainted +${id} `, 'm'))
    const revoke = ['authority', 'revoke', kind, ...chosen, '--force']
    assert.partialDeepStrictEqual(await json(revoke), { authority_id: id })
    assert.match((await lines('authority', 'taint', kind))[0] ?? '', /^tainted \w+$/)
  }
  await fails(1, ['authority', 'taint', 'x509', '--subject-key-id', 'ab'], { message: /upstream/ })
  await fails(2, ['authority', 'revoke', 'jwt', '--subject-key-id', 'ab'], { message: /x509/ })
  await fails(2, ['authority', 'prepare'], { message: /needs a KIND/ })
})

test('approval shows what waits for a second person, who is another one than the first', async () => {
  await using careful = new Installation()
  await careful.startServer('memory', 'approvals: { inventory: 2 }\n')
  const there = careful.atServer()
  assert.equal((await assay(['approval', 'list', ...there])).stderr, '0 requests\n')
  const ask = async (hash: string): Promise<string> => {
    const args = ['inventory', 'approve', hash.repeat(64), '--node-name', 'n9', ...there]
    const { stderr } = await fails(1, args, {
      message: /assay approval approve .*\[approval-required\]/s,
    })
    return /assay approval approve ([0-9a-f]+)/.exec(stderr)?.[1] ?? ''
  }
  const id = await ask('a')
  const table = await lines('approval', 'list', ...there)
  assert.match(table[0] ?? '', /^REQUEST +STATE +BY +EXPIRES +WHAT$/)
  assert.ok(table[1]?.startsWith(id))
  assert.partialDeepStrictEqual(await json(['approval', 'list', ...there]), [{ id, missing: 1 }])
  assert.match((await lines('approval', 'show', id, ...there)).join('\n'), /^Still missing +1$/m)
  assert.partialDeepStrictEqual(await json(['approval', 'show', id, ...there]), {
    id,
    approvers: [],
  })
  const message = /asked for it, and another administrator has to agree/
  await fails(4, ['approval', 'approve', id, ...there], { message })
  await fails(4, ['approval', 'approve', id, '--json', ...there], { message })
  assert.match((await lines('approval', 'deny', id, ...there))[0] ?? '', /^denied /)
  assert.partialDeepStrictEqual(await json(['approval', 'deny', await ask('b'), ...there]), {
    state: 'denied',
  })
  await fails(3, ['approval', 'show', 'ffffffff', ...there], { message: /ffffffff/ })
  await fails(2, ['approval', 'show', ...there], {
    message: /needs an ID; see 'assay approval list'/,
  })
})

test('healthcheck asks the server, or the agent', async () => {
  assert.deepEqual(await lines('healthcheck'), ['the server is healthy'])
  assert.deepEqual(await json(['healthcheck']), { healthy: true })
  const agent = ['healthcheck', '--agent', '--socket-path', installation.workloadSocket]
  assert.deepEqual(await lines(...agent), ['the agent is healthy'])
})

test('version, help and completion need no daemon', async () => {
  const [text, said, help, ask] = await Promise.all([
    lines('version'),
    json(['version']),
    lines('help', 'entry', 'create'),
    lines('entry', 'create', '--help'),
  ])
  assert.match(text[0] ?? '', /^assay \d+\.\d+\.\d+/)
  assert.deepEqual(await lines('--version'), [text[0]?.replace('assay ', '')])
  assert.deepEqual(said, { version: text[0]?.replace('assay ', '') })
  assert.deepEqual(help, ask)
  for (const args of [
    ['complete', '--', 'hsm'],
    ['complete', '--json', '--', 'hsm'],
  ])
    assert.deepEqual(await lines(...args), ['status', 'keys', 'rotate', 'resume', 'accept-clock'])
  for (const args of [
    ['completion', 'bash'],
    ['completion', 'zsh', '--json'],
  ])
    assert.match((await lines(...args)).join('\n'), /assay complete/)
  await fails(2, ['completion', 'tcsh'], { message: /needs a SHELL: bash, zsh, fish/ })
})

test('setup writes what it is told and starts nothing, and bundle fingerprint names the authority', async () => {
  const fingerprints = await lines('bundle', 'fingerprint')
  const [authority = ''] = fingerprints
  assert.match(authority, /^[0-9a-f]{64}$/)
  assert.deepEqual(await json(['bundle', 'fingerprint']), { fingerprints })
  const at = (name: string): readonly string[] => ['--config', installation.at(`setup/${name}`)]
  const server = ['setup', 'server', ...at('server.yaml'), '--trust-domain', 'example.org']
  const options = ['--keys', 'disk', '--no-start']
  assert.match((await lines(...server, ...options))[0] ?? '', /^start it: +assay-server run/)
  const again = await assay([...server, '--no-start', '--json'])
  assert.equal(JSON.parse(again.stdout).changed, false)
  const agent = ['setup', 'agent', ...at('agent.yaml'), '--trust-domain', 'example.org']
  const source = ['--server-address', `127.0.0.1:${installation.serverPort}`, '--no-start']
  const pinned = ['--bundle-fingerprint', authority, '--tcti', installation.tcti]
  const said = (await lines(...agent, ...source, ...pinned)).join('\n')
  assert.match(said, /^endorsement key: +HASH$/m)
  const repeated = await assay([...agent, ...source, ...pinned, '--json'])
  assert.equal(JSON.parse(repeated.stdout).endorsement_key_hash, fingerprint)
})

test('backup writes a file, and restore says what it did', async () => {
  const file = installation.at('cli.backup')
  const [first = ''] = await lines('backup', file)
  assert.match(first, /^Backup +DIR\/cli\.backup$/)
  const backup = (await json(['backup', file, '--force'])) as { keys_in: string }
  assert.match(backup.keys_in, /^disk /)
  await fails(2, ['backup'], { message: /needs a FILE/ })
  const config = installation.at('elsewhere.yaml')
  writeFileSync(
    config,
    `trust_domain: example.org\ndata_dir: elsewhere\nkey_manager: { memory: {} }\n`,
  )
  const args = ['restore', file, '--config', config]
  assert.match((await lines(...args)).join('\n'), /^As of +TIME .*\n.*\nRestored +DIR\/elsewhere/m)
  const again = (await json([...args, '--force'])) as { moved_on_by: number; set_aside: string[] }
  assert.deepEqual([again.moved_on_by, again.set_aside.length], [1_000_000, 2])
  await fails(2, ['restore'], { message: /needs the FILE/ })
})

test('ceremony plans, holds and verifies a root', async () => {
  await installation.makeToken()
  environment = { ...environment, SOFTHSM2_CONF: installation.at('hsm/softhsm2.conf') }
  const write = (name: string): string => {
    const file = installation.at(`${name}.yaml`)
    writeFileSync(
      file,
      `kind: root
trust_domain: example.org
key: { generate: { module: /usr/lib/softhsm/libsofthsm2.so, token_label: assay, pin_file: hsm/pin, label: ${name}, type: ec-p256 } }
certificate: { serial_number: 5f1ac0d3e8a97b264f105bdc38e97a6b, not_before: 2026-01-01T00:00:00Z, not_after: 2050-01-01T00:00:00Z }
outputs: { certificate: ${name}.pem, transcript: ${name}.json }
`,
    )
    return file
  }
  const [first, second] = [write('first'), write('second')]
  const planned = await lines('ceremony', 'plan', first)
  assert.equal(planned[0], 'ceremony   root of trust domain example.org')
  const plan = (await json(['ceremony', 'plan', second])) as { tbs_sha256: string }
  assert.equal(planned.at(-1), `SHA-256 of these bytes  ${plan.tbs_sha256}`)
  const made = await lines('ceremony', 'run', first, '--expect', plan.tbs_sha256)
  assert.deepEqual(made.slice(-2), ['wrote DIR/first.pem', 'wrote DIR/first.json'])
  const { written } = (await json(['ceremony', 'run', second])) as { written: string[] }
  assert.equal(written.length, 2)
  const verified = await lines('ceremony', 'verify', installation.at('first.json'))
  assert.match(verified[0] ?? '', /^valid +C=US, O=SPIFFE, serialNumber=SERIAL, until TIME$/)
  const { valid } = (await json(['ceremony', 'verify', installation.at('second.json')])) as {
    valid: boolean
  }
  assert.ok(valid)
  await fails(2, ['ceremony', 'plan'], { message: /name the file/ })
  await fails(1, ['ceremony', 'run', first], { message: /\[ceremony-output\]/ })
})

test('helper checks its file, and says so', async () => {
  const file = installation.at('helper.yaml')
  writeFileSync(file, `cert_dir: files\nsvid_file_name: svid.pem\n`)
  const args = ['helper', '--config', file, '--validate']
  assert.deepEqual(await lines(...args), ['the configuration is valid'])
  assert.deepEqual(await json(args), { valid: true })
  await fails(2, ['helper'], { message: /needs --config FILE/ })
})

test('a wrong call ends with status 2, and says what was probably meant', async () => {
  await Promise.all([
    fails(2, [], { message: /^usage: assay NOUN VERB/ }),
    fails(2, ['entri'], { message: /no command 'entri'; did you mean 'entry'\?/ }),
    fails(2, ['nix'], { message: /no command 'nix'; 'assay --help' lists them/ }),
    fails(2, ['entry', 'lst'], { message: /no command 'entry lst'; did you mean 'entry list'\?/ }),
    fails(2, ['entry', 'list', '--selectr', 'a:b'], { message: /did you mean --selector\?/ }),
    fails(2, ['entry', 'count', '--timeout', '0'], { message: /--timeout is 0 s: .*1s to 24h/ }),
    fails(2, ['entry', 'count', '--timeout', 'soon'], { message: /write a duration/ }),
    fails(2, ['fetch', 'x509', '--socket-path', 'tcp://127.0.0.1:1'], {
      message: /Unix sockets only/,
    }),
  ])
})

test('a daemon that is not there is named with its socket and what to do, with status 5', async () => {
  const message = (program: string, option: string): RegExp =>
    new RegExp(
      `^assay: cannot reach unix:///nix: .*ENOENT.* \\[not-connected\\]\nis ${program} running\\? --${option} or \\w+ says where its socket is\n$`,
    )
  await Promise.all([
    fails(5, ['entry', 'list', '--socket-path', '/nix'], {
      message: message('assay-server', 'socket-path'),
    }),
    fails(5, ['fetch', 'x509', '--socket-path', 'unix:///nix'], {
      message: message('assay-agent', 'socket-path'),
    }),
    fails(5, ['agent', 'status', '--admin-socket-path', '/nix'], {
      message: message('assay-agent', 'admin-socket-path'),
    }),
    fails(5, ['watch', '--socket-path', '/nix', '--json'], {
      message:
        /^\{"error":"cannot reach unix:\/\/\/nix: .*","code":"unavailable","reason":"not-connected"\}\n$/,
    }),
  ])
})

test('a socket that this user may not open is a refusal, with status 4', {
  skip: noOtherUser,
}, async () => {
  const child = start(['entry', 'count'], nobody)
  const [said] = (await once(child.stderr, 'data')) as [string]
  assert.match(said, /EACCES.*\nthis user may not open it: /)
  assert.deepEqual(await once(child, 'close'), [4, null])
})

test('a way to the Workload API that is closed is told apart from a socket that is', {
  skip: noOtherUser,
}, async () => {
  chmodSync(installation.directory, 0o700)
  try {
    const child = start(['fetch', 'x509'], nobody)
    const [said] = (await once(child.stderr, 'data')) as [string]
    assert.match(steady(said), /EACCES.*\nthe socket is open .* may not pass the directory DIR:/)
    assert.deepEqual(await once(child, 'close'), [4, null])
  } finally {
    chmodSync(installation.directory, 0o711)
  }
})

test('a server that hangs is given up after --timeout, with status 5', async () => {
  const server = installation.daemons.find(({ name }) => name === 'assay-server')
  assert.ok(server)
  process.kill(server.pid, 'SIGSTOP')
  try {
    await fails(5, ['entry', 'count', '--timeout', '1s'], {
      message: /^assay: assay-server did not answer within 1 s; --timeout gives it longer/,
    })
  } finally {
    process.kill(server.pid, 'SIGCONT')
  }
})

test('agent status is 6 once the agent has lost its server', async () => {
  const server = installation.daemons.find(({ name }) => name === 'assay-server')
  await server?.[Symbol.asyncDispose]()
  let status = await assay(['agent', 'status'])
  while (status.status === 0) status = await assay(['agent', 'status'])
  assert.equal(status.status, 6, status.stderr)
  assert.match(status.stdout, /^State +degraded\nWhy +/)
  await fails(5, ['healthcheck'], { message: /is assay-server running\?/ })
  await installation.startServer('disk')
})

test('refusal list --server, and agent ban and evict', async () => {
  assert.deepEqual(await json(['refusal', 'list', '--server']), [])
  assert.deepEqual(await json(['agent', 'ban', '--spiffe-id', agentId]), { banned: agentId })
  assert.match((await lines('agent', 'list', '--banned')).join(), / banned/)
  assert.deepEqual(await lines('agent', 'evict', '--spiffe-id', agentId), ['evicted AGENT'])
  await fails(3, ['agent', 'evict', '--spiffe-id', agentId, '--json'], { message: /not-found/ })
  await fails(3, ['agent', 'ban', '--spiffe-id', agentId], {
    message: /^assay: agent not found: AGENT/,
  })
})

test('every command was called above, for people and for programs', async () => {
  const names = (await allCommands()).flatMap(({ name }) => [name, `${name} --json`])
  assert.deepEqual(
    names.filter((name) => !called.has(name)),
    [],
  )
})
