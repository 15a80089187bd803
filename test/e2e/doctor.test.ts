// Every check of `assay doctor`, with the thing it looks at broken in fact.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { DatabaseSync } from 'node:sqlite'
import { text as readText } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { nobody, noOtherUser } from '../support/another-user.ts'
import { freePort, Installation } from '../support/installation.ts'
import { eventually } from '../support/live-agent.ts'

interface Found {
  readonly check: string
  readonly level: 'ok' | 'warning' | 'problem'
  readonly what: string
  readonly why?: string
  readonly remedy?: string
}

const root = new URL('../..', import.meta.url).pathname
const assay = new Installation()
const isRoot = process.getuid?.() === 0
const yaml = (name: 'server' | 'agent'): string => assay.at(`${name}.yaml`)

before(async () => {
  await assay.startTpm()
  await assay.startServer('disk')
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  await assay.startAgent(`join_token: { token: ${token} }`)
})
after(() => assay[Symbol.asyncDispose]())

/** What doctor finds with a configuration in which `change` was made. */
async function examine(
  side: 'server' | 'agent',
  change: (text: string) => string = (text) => text,
): Promise<readonly Found[]> {
  const file = assay.at('changed.yaml')
  writeFileSync(file, change(readFileSync(yaml(side), 'utf8')))
  const { status, stdout, stderr } = await assay.tryAssay(
    ...['doctor', side, '--config', file, '--json'],
  )
  const { problems, findings } = JSON.parse(stdout || `{"problems":"${stderr}"}`) as {
    problems: number
    findings: readonly Found[]
  }
  assert.equal(status, problems > 0 ? 6 : 0)
  for (const { level, why, remedy } of findings) {
    assert.equal(level === 'ok', why === undefined && remedy === undefined)
  }
  return findings
}

/** Wants one problem (or warning) of that check, and what it says. */
function finds(findings: readonly Found[], check: string, wanted: RegExp): Found {
  const found = findings.filter((one) => one.check === check && one.level !== 'ok')
  const one = found.find(({ what, why, remedy }) => wanted.test(`${what}\n${why}\n${remedy}`))
  assert.ok(one, JSON.stringify(findings, undefined, 1))
  return one
}

/** Runs another program to its end, whatever that is. */
async function ended(program: string, args: readonly string[]): Promise<{ stdout: string }> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'] })
  return { stdout: await readText(child.stdout) }
}

const problemsOf = (findings: readonly Found[]): readonly string[] =>
  findings.filter(({ level }) => level === 'problem').map(({ check, what }) => `${check}: ${what}`)

/** A server that does not run, with data of its own below `name`. */
const stopped =
  (name: string) =>
  (text: string): string =>
    text
      .replaceAll(assay.at('server/'), assay.at(`${name}/`))
      .replace(`data_dir: ${assay.at('server')}\n`, `data_dir: ${assay.at(name)}\n`)
      .replace(assay.at('server.sock'), assay.at(`${name}.sock`))

test('doctor finds nothing wrong with a server and an agent that work', async () => {
  const server = await examine('server')
  assert.deepEqual(problemsOf(server), [])
  assert.ok(server.some(({ check, what }) => check === 'version' && /agents: 1 of /.test(what)))
  const agent = await examine('agent')
  assert.deepEqual(problemsOf(agent), [])
  const clock = /is ready; the server's clock is \d+ ms (ahead of|behind) this one$/
  assert.ok(
    agent.some(({ what }) => clock.test(what)),
    JSON.stringify(agent),
  )
})

test('doctor prints for people what mends it, and knows what is configured where', async () => {
  const said = await assay.tryAssay('doctor', 'server', '--config', '/nix.yaml')
  assert.equal(said.status, 6)
  assert.match(said.stdout, /^PROBLEM {2}configuration {2}.*cannot read.*\n +why: .*\n +mend: /m)
  if (existsSync('/etc/assay')) return
  const nothing = await assay.tryAssay('doctor')
  assert.equal(nothing.status, 2)
  assert.match(nothing.stderr, /neither \/etc\/assay\/server\.yaml nor \/etc\/assay\/agent\.yaml/)
})

test('doctor names every mistake in the configuration with its line', async () => {
  const found = await examine('agent', (text) => `${text}nonsense: 1\nlog_level: loud\n`)
  finds(found, 'configuration', /changed\.yaml:\d+:1: nonsense: unknown key/)
  finds(found, 'configuration', /log_level: is "loud"/)
})

test('doctor finds data that others can read, or that belongs to another user', {
  skip: !isRoot && 'needs root',
}, async () => {
  mkdirSync(assay.at('open'), { mode: 0o700 })
  chmodSync(assay.at('open'), 0o777)
  writeFileSync(assay.at('open/server-id'), '')
  chmodSync(assay.at('open/server-id'), 0o644)
  chownSync(assay.at('open/server-id'), 65534, 65534)
  const found = await examine('server', stopped('open'))
  finds(found, 'data_dir', /open has mode 0777.*\n.*\nchmod go-w /)
  finds(found, 'data_dir', /server-id has mode 0644.*\n.*\nchmod go-rwx /)
  finds(found, 'data_dir', /belongs to user 65534, its directory to user 0/)
})

test('doctor tells a socket that is absent from one that was left behind', async () => {
  finds(await examine('server', stopped('absent')), 'socket', /there is no socket at/)
  const listen = `require('node:net').createServer().listen('${assay.at('stale.sock')}')`
  const child = spawn(process.execPath, ['-e', listen])
  await eventually(() => existsSync(assay.at('stale.sock')) || undefined, 'a socket')
  child.kill('SIGKILL')
  await once(child, 'exit')
  finds(await examine('server', stopped('stale')), 'socket', /nobody listens.*ECONNREFUSED/)
})

test('doctor run by another user names the directory that is closed', {
  skip: noOtherUser,
}, async () => {
  const file = assay.at('closed.yaml')
  mkdirSync(assay.at('closed'), { mode: 0o700 })
  const text = readFileSync(yaml('agent'), 'utf8').replace(
    assay.workloadSocket,
    assay.at('closed/api.sock'),
  )
  writeFileSync(
    file,
    text.replace(`data_dir: ${assay.at('agent')}`, `data_dir: ${assay.at('none')}`),
  )
  const args = ['doctor', 'agent', '--config', file, '--json']
  const child = spawn(`${root}bin/assay`, args, { ...nobody, stdio: ['ignore', 'pipe', 'ignore'] })
  const said = await readText(child.stdout)
  finds(
    JSON.parse(said).findings,
    'sockets',
    /closed\/api\.sock cannot be opened.*chmod a\+x .*closed/s,
  )
})

test('doctor finds a damaged datastore, a foreign one, and one of another trust domain', async () => {
  mkdirSync(assay.at('broken'))
  writeFileSync(assay.at('broken/datastore.sqlite3'), 'not a database at all'.repeat(1000))
  finds(await examine('server', stopped('broken')), 'datastore', /is damaged: .*assay restore/s)
  await assay.assay('backup', assay.at('a.backup'), ...assay.atServer())
  mkdirSync(assay.at('other'))
  execFileSync('tar', ['-xf', assay.at('a.backup'), '-C', assay.at('other')])
  const other = await examine('server', (text) =>
    stopped('other')(text).replace('trust_domain: example.org', 'trust_domain: other.org'),
  )
  finds(other, 'datastore', /it is of example\.org, not other\.org/)
  const good = await examine('server', stopped('other'))
  assert.ok(good.some(({ check, what }) => check === 'datastore' && /is sound/.test(what)))
  copyFileSync(assay.at('other/datastore.sqlite3'), assay.at('broken/datastore.sqlite3'))
  using database = new DatabaseSync(assay.at('broken/datastore.sqlite3'))
  database.exec('PRAGMA user_version = 99')
  finds(await examine('server', stopped('broken')), 'datastore', /schema 99, and this is assay \d/)
})

test('doctor finds a port that somebody has', async () => {
  const port = await freePort()
  const taken = createServer().listen(port, '127.0.0.1')
  const found = await examine('server', (text) =>
    stopped('absent')(text).replace(/bind_port: \d+\nsocket/, `bind_port: ${port}\nsocket`),
  )
  finds(found, 'port', /port \d+ is not to be had \(EADDRINUSE\)/)
  taken.close()
})

test('doctor looks for the HSM without a PIN: library, token, and who may read the PIN', async () => {
  await assay.makeToken()
  const pkcs11 = (keys: string) => (text: string) =>
    stopped('absent')(text).replace(/key_manager: .*/, `key_manager: { pkcs11: { ${keys} } }`)
  const module = '/usr/lib/softhsm/libsofthsm2.so'
  const none = await examine('server', pkcs11('module: /nix.so, token_label: a'))
  finds(none, 'key manager', /library \/nix\.so is not there/)
  const missing = await examine(
    'server',
    pkcs11(`module: ${module}, token_label: a, pin_file: /nix`),
  )
  finds(missing, 'key manager', /PIN's file cannot be found/)
  chmodSync(assay.at('hsm/pin'), 0o644)
  const open = await examine(
    'server',
    pkcs11(`module: ${module}, token_label: a, pin_file: ${assay.at('hsm/pin')}`),
  )
  finds(open, 'key manager', /is open to others.*chmod 0400/s)
  finds(open, 'key manager', /the library shows no token 'a'/)
})

test('doctor looks for the socket of the signer, and who may connect to it', async () => {
  const socket = assay.at('signer.sock')
  const served = (text: string) =>
    `${stopped('absent')(text).replace(
      /key_manager: .*/,
      'key_manager: { pkcs11: { module: /usr/lib/softhsm/libsofthsm2.so, token_label: assay } }',
    )}\nsigner_socket_path: ${socket}\n`
  const missing = await examine('server', served)
  finds(missing, 'signer', /cannot be reached: ENOENT.*systemctl start assay-signer\.socket/s)
  const listener = createServer().listen(socket)
  await once(listener, 'listening')
  chmodSync(socket, 0o666)
  finds(await examine('server', served), 'signer', /has mode 666.*could have anything signed/s)
  chmodSync(socket, 0o600)
  const well = (await examine('server', served)).filter(({ check }) => check === 'signer')
  assert.deepEqual(
    well.map(({ level, what }) => [level, what]),
    [['ok', `a service of its own, at ${socket}`]],
  )
  listener.close()
})

test('doctor says of a server that cannot be verified which authority it has, and why it is refused', async () => {
  const other = new Installation()
  try {
    await other.startServer('memory')
    writeFileSync(other.at('bundle.pem'), await other.assay('bundle', 'show', ...other.atServer()))
    const wrong = (text: string): string =>
      text
        .replace(`data_dir: ${assay.at('agent')}`, `data_dir: ${assay.at('fresh')}`)
        .replace(assay.at('bundle.pem'), other.at('bundle.pem'))
    const refused = finds(await examine('agent', wrong), 'server', /is refused/)
    assert.match(
      refused.why ?? '',
      /it is spiffe:\/\/example\.org\/spire\/server, issued by [0-9a-f]+/,
    )
    assert.match(refused.remedy ?? '', /assay bundle show > bundle\.pem/)
  } finally {
    await other[Symbol.asyncDispose]()
  }
})

test('doctor finds a host without address, a server that is away, and a TPM that is not there', async () => {
  const dns = await examine('agent', (text) =>
    text.replace('server_address: 127.0.0.1', 'server_address: nowhere.invalid'),
  )
  finds(dns, 'dns', /nowhere\.invalid is not found/)
  const away = await examine('agent', (text) => text.replace(/server_port: \d+/, 'server_port: 1'))
  finds(away, 'server', /cannot be reached: .*ECONNREFUSED/)
  const tpm = await examine('agent', (text) =>
    text.replace(/node_attestor: .*/, 'node_attestor: { tpm: { tcti: "device:/dev/nix" } }'),
  )
  finds(tpm, 'tpm', /proves itself by it/)
  const works = await examine('agent', (text) =>
    text.replace(/node_attestor: .*/, `node_attestor: { tpm: { tcti: "${assay.tcti}" } }`),
  )
  assert.ok(works.some(({ check, level }) => check === 'tpm' && level === 'ok'))
})

test('doctor finds a disk that is full, and one without inodes', { skip: !isRoot }, async () => {
  for (const [options, wanted] of [
    ['size=8m', /^\d MiB free at .*\n.*full disk.*\n.*df -h/s],
    ['size=64m,nr_inodes=40', /^\d+ inodes free at .*\n.*\n.*df -i/s],
  ] as const) {
    const disk = assay.at(`disk-${options.length}`)
    mkdirSync(disk)
    const file = assay.at('small-disk.yaml')
    writeFileSync(
      file,
      readFileSync(yaml('agent'), 'utf8').replace(/^data_dir: .*$/m, `data_dir: ${disk}`),
    )
    // In a mount namespace of its own, which ends with the command.
    const commands =
      'mount -t tmpfs -o "$1" tmpfs "$2"; exec "$3" doctor agent --json --config "$4"'
    const { stdout } = await ended('unshare', [
      ...['--mount', 'sh', '-ec', commands, 'sh'],
      ...[options, disk, `${root}bin/assay`, file],
    ])
    finds(JSON.parse(stdout).findings, 'disk', wanted)
  }
})

test('an agent that hangs is named by status and doctor, and takes nothing of the server away', async () => {
  const agent = assay.daemons.find(({ name }) => name === 'assay-agent')
  assert.ok(agent)
  const where = [...assay.atServer(), ...assay.atAgentAdministration(), '--timeout', '2s']
  process.kill(agent.pid, 'SIGSTOP')
  try {
    const [shown, told, findings] = await Promise.all([
      assay.tryAssay('status', ...where),
      assay.tryAssay('status', ...where, '--json'),
      examine('agent'),
    ])
    assert.equal(shown.status, 6, shown.stderr)
    assert.match(shown.stdout, /^Server +/m)
    assert.match(shown.stdout, /^Trouble +assay-agent cannot be asked: .*within 2 s/m)
    const { server, agent: none, unanswered } = JSON.parse(told.stdout)
    assert.ok(server.ready)
    assert.equal(none, undefined)
    assert.deepEqual(
      unanswered.map(({ program }: { readonly program: string }) => program),
      ['assay-agent'],
    )
    finds(findings, 'agent', /does not answer.*within 5 s\n.*\n.*systemctl restart/s)
  } finally {
    process.kill(agent.pid, 'SIGCONT')
  }
})

test('doctor names a rotation that is half done, and an authority that is tainted', async () => {
  const agent = assay.daemons.find(({ name }) => name === 'assay-agent')
  assert.ok(agent)
  const isWarned = (findings: readonly Found[]): boolean =>
    findings.some(({ check, level }) => check === 'authorities' && level === 'warning')
  assert.equal(isWarned(await examine('server')), false)
  // A node that does not answer holds it up.
  process.kill(agent.pid, 'SIGSTOP')
  const rotating = spawn(
    `${root}bin/assay`,
    ['hsm', 'rotate', 'jwt', '--retire', ...assay.atServer()],
    {
      stdio: 'ignore',
    },
  )
  try {
    const found = await eventually(async () => {
      const findings = await examine('server')
      return isWarned(findings) ? findings : undefined
    }, 'a rotation that waits')
    finds(
      found,
      'authorities',
      /rotation of jwt \w{16} is half done since .*\n.*\nassay hsm rotate jwt --retire/,
    )
  } finally {
    rotating.kill()
    process.kill(agent.pid, 'SIGCONT')
  }
  for (const step of ['prepare', 'activate', 'taint'])
    await assay.assay('authority', step, 'x509', ...assay.atServer())
  finds(
    await examine('server'),
    'authorities',
    /x509-ca authority \w{16} is tainted and still trusted.*\n.*\n.*assay authority revoke x509 --authority-id \w{40}/,
  )
})

test('doctor hears from the agent that it has lost its server, and from status the same', async () => {
  const server = assay.daemons.find(({ name }) => name === 'assay-server')
  await server?.[Symbol.asyncDispose]()
  const found = await eventually(async () => {
    const findings = await examine('agent')
    return findings.some(({ check, level }) => check === 'agent' && level === 'problem')
      ? findings
      : undefined
  }, 'a degraded agent')
  finds(found, 'agent', /it is degraded: /)
  rmSync(assay.at('a.backup'))
})
