import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, test } from 'node:test'

const program = new URL('../../bin/assay-server', import.meta.url).pathname
let directory = ''
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'assay-server-'))
})
after(() => rm(directory, { recursive: true }))

/** A program that runs, what it has said so far, and how it ended. */
class Running implements AsyncDisposable {
  readonly #child
  readonly ended: Promise<number | null>
  output = ''
  #heard: () => void = () => {}

  constructor(args: readonly string[]) {
    this.#child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    const hear = (text: string): void => {
      this.output += text
      this.#heard()
    }
    this.#child.stdout.setEncoding('utf8').on('data', hear)
    this.#child.stderr.setEncoding('utf8').on('data', hear)
    this.ended = new Promise((resolve) => this.#child.once('close', resolve))
  }

  async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.output)) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#heard = resolve
      const status = await Promise.race([promise, this.ended])
      if (status !== undefined) throw new Error(`it ended with ${status}:\n${this.output}`)
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill('SIGKILL')
    await this.ended
  }
}

async function configure(name: string, settings = ''): Promise<string> {
  const file = join(directory, `${name}.yaml`)
  await writeFile(
    file,
    `trust_domain: example.org
data_dir: ${name}
bind_address: 127.0.0.1
bind_port: 0
socket_path: ${name}.sock
key_manager: { disk: {} }
node_attestors: { join_token: {} }
${settings}
`,
  )
  return file
}

const configureText = (file: string): Promise<string> => readFile(file, 'utf8')

test('assay-server run serves until SIGTERM, and starts again with the same authorities', async () => {
  const file = await configure('again')
  const ids: (string | undefined)[] = []
  for (const round of [1, 2]) {
    await using server = new Running(['run', '--config', file])
    await server.until(/agents can connect/)
    assert.equal((await stat(join(directory, 'again.sock'))).mode & 0o777, 0o770)
    assert.equal((await stat(join(directory, 'again'))).mode & 0o777, 0o700)
    ids.push(/X.509 authority is active .*authorityId=(\w+)/.exec(server.output)?.[1])
    assert.match(server.output, /WARN .*no HSM/, `round ${round} warns of keys on disk`)
    server.kill('SIGTERM')
    assert.equal(await server.ended, 0)
    assert.match(server.output, /stopped\n$/)
  }
  assert.notEqual(ids[0], undefined)
  assert.equal(ids[1], undefined, 'the second start made no authority')
})

test('assay-server reads its configuration again at SIGHUP, and names what needs a restart', async () => {
  const file = await configure('hup')
  await using server = new Running(['run', '--config', file])
  await server.until(/agents can connect/)
  await configure('hup', 'log_level: warn\nmax_connections: 7\n')
  server.kill('SIGHUP')
  await server.until(/needs a restart: max_connections/)
  // What is less severe than the new level is not heard; the next one is wrong, which is.
  await configure('hup', 'log_level: loud\n')
  server.kill('SIGHUP')
  await server.until(/cannot reload the configuration/)
  server.kill('SIGINT')
  assert.equal(await server.ended, 0)
})

test('assay-server names a port that is taken', async () => {
  await using blocker = createServer()
  await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve))
  const address = blocker.address()
  const port = typeof address === 'object' ? address?.port : 0
  const file = await configure('port')
  await writeFile(file, (await configureText(file)).replace('bind_port: 0', `bind_port: ${port}`))
  await using server = new Running(['run', '--config', file])
  assert.equal(await server.ended, 2)
  assert.match(server.output, new RegExp(`cannot listen on 127.0.0.1 port ${port}`))
})

test('assay-server does not take the socket of one that runs', async () => {
  const file = await configure('first')
  await using first = new Running(['run', '--config', file])
  await first.until(/agents can connect/)
  const other = await configure('second')
  await writeFile(
    other,
    (await configureText(other)).replace('socket_path: second.sock', 'socket_path: first.sock'),
  )
  await using second = new Running(['run', '--config', other])
  assert.equal(await second.ended, 2)
  assert.match(second.output, /another process is listening on it/)
})

test('assay-server names the reason when the token’s module is not there', async () => {
  const file = await configure('hsm')
  await writeFile(
    file,
    (await configureText(file)).replace(
      'key_manager: { disk: {} }',
      'key_manager: { pkcs11: { module: /nowhere.so, token_label: assay, pin_file: pin } }',
    ),
  )
  await writeFile(join(dirname(file), 'pin'), '1234', { mode: 0o400 })
  await using server = new Running(['run', '--config', file])
  assert.equal(await server.ended, 2)
  assert.match(server.output, /ERROR the server ends .*nowhere/)
})

for (const [what, name, replaced, by, said] of [
  ['a data_dir that cannot be', 'file', 'data_dir: file', 'data_dir: file.yaml/data', /data_dir/],
  [
    'TPMs by their maker, and no maker',
    'no-maker',
    'node_attestors: {',
    'node_attestors: { tpm: { allow: endorsement_ca },',
    /endorsement_ca/,
  ],
  [
    'makers that cannot be read',
    'bad-maker',
    'node_attestors: {',
    'node_attestors: { tpm: { endorsement_ca: bad-maker.yaml },',
    /cannot load node_attestors.tpm.endorsement_ca/,
  ],
  [
    'a PIN file that is not there',
    'no-pin',
    'key_manager: { disk: {} }',
    'key_manager: { pkcs11: { module: /usr/lib/softhsm/libsofthsm2.so, token_label: x, pin_file: no } }',
    /cannot read hsm pin from|pin_file/,
  ],
] as const) {
  test(`assay-server ends with 2 for ${what}`, async () => {
    const file = await configure(name)
    await writeFile(file, (await configureText(file)).replace(replaced, by))
    {
      await using server = new Running(['run', '--config', file])
      assert.equal(await server.ended, 2)
      assert.match(server.output, said)
    }
    if (name === 'file') return
    await using validation = new Running(['validate', '--config', file])
    assert.equal(await validation.ended, 2)
    assert.match(validation.output, said)
  })
}

test('assay-server ends with 2 for a journal that cannot be read', async () => {
  const file = await configure('journal')
  {
    await using server = new Running(['run', '--config', file])
    await server.until(/agents can connect/)
    server.kill('SIGTERM')
    await server.ended
  }
  {
    using database = new DatabaseSync(join(directory, 'journal', 'datastore.sqlite3'))
    database.exec("UPDATE journals SET document = '{'")
  }
  await using server = new Running(['run', '--config', file])
  assert.equal(await server.ended, 2)
  assert.match(server.output, /invalid authority journal/)
})

test('assay-server validate names every problem with its place, and is quiet about none', async () => {
  const file = await configure('bad', 'bind_prot: 1\nca_ttl: 1d\n')
  await using bad = new Running(['validate', '--config', file])
  assert.equal(await bad.ended, 2)
  assert.match(bad.output, /bad\.yaml:\d+:\d+: bind_prot: unknown key; did you mean bind_port\?/)
  assert.match(bad.output, /bad\.yaml:\d+:\d+: ca_ttl: /)
  await using good = new Running(['validate', '--config', await configure('good')])
  assert.equal(await good.ended, 0)
  assert.match(good.output, /warning: .*no HSM[\s\S]*the configuration is valid/)
})

for (const [args, status, text] of [
  [['--help'], 0, /assay-server run --config FILE/],
  [['--version'], 0, /^\d+\.\d+\.\d+\n$/],
  [[], 2, /assay-server run/],
  [['run'], 2, /needs --config/],
  [['dance'], 2, /assay-server run/],
  [['run', '--colour'], 2, /--colour/],
  [['run', '--config', '/nowhere.yaml'], 2, /nowhere\.yaml/],
] as const) {
  test(`assay-server ${args.join(' ')} ends with ${status}`, async () => {
    await using run = new Running(args)
    assert.equal(await run.ended, status)
    assert.match(run.output, text)
  })
}
