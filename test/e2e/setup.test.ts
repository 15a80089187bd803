// From nothing to an attested node by `assay setup`, and what somebody sees who is asked on a terminal.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { Daemon } from '../support/daemon.ts'
import { basicConstraints, caCertificate } from '../support/endorsement-maker.ts'
import { freePort, Installation } from '../support/installation.ts'
import { eventually } from '../support/live-agent.ts'

const root = new URL('../..', import.meta.url).pathname
const assay = new Installation()
const serverYaml = assay.at('etc-server.yaml')
const agentYaml = assay.at('etc-agent.yaml')
const module = '/usr/lib/softhsm/libsofthsm2.so'
let port = 0

before(async () => {
  await assay.startTpm()
  await assay.makeToken()
  port = await freePort()
  writeFileSync(
    serverYaml,
    `# what the site wants
data_dir: ${assay.at('server')}
bind_address: 127.0.0.1
bind_port: ${port}   # not the usual one
socket_path: ${assay.at('server.sock')}
`,
  )
  writeFileSync(
    agentYaml,
    `data_dir: ${assay.at('agent')}
socket_path: ${assay.workloadSocket}
admin_socket_path: ${assay.at('admin/admin.sock')}
trust_bundle_path: ${assay.at('fetched.pem')}
`,
  )
})
after(() => assay[Symbol.asyncDispose]())

const setupServer = (...options: readonly string[]) =>
  assay.tryAssay('setup', 'server', '--config', serverYaml, '--no-start', ...options)
const setupAgent = (...options: readonly string[]) =>
  assay.tryAssay('setup', 'agent', '--config', agentYaml, '--no-start', ...options)

async function start(name: 'assay-server' | 'assay-agent', config: string): Promise<void> {
  const command = [`${root}bin/${name}`, 'run', '--config', config] as const
  const daemon = new Daemon(name, [...command], {
    log: assay.at(`${name}.log`),
    environment: { SOFTHSM2_CONF: assay.at('hsm/softhsm2.conf') },
  })
  assay.daemons.push(daemon)
  const where = name === 'assay-server' ? assay.atServer() : ['--agent', ...assay.atAgent()]
  await daemon.waitUntil(async () => (await assay.tryAssay('healthcheck', ...where)).status !== 5)
}

test('setup asks nobody where nobody is, and says what is missing; --dry-run writes nothing', async () => {
  const missing = await setupServer()
  assert.equal(missing.status, 2)
  assert.match(missing.stderr, /nobody can be asked here: The name of the trust domain/)
  const text = readFileSync(serverYaml, 'utf8')
  const dry = await setupServer('--trust-domain', 'example.org', '--keys', 'disk', '--dry-run')
  assert.equal(dry.status, 0, dry.stderr)
  assert.match(dry.stderr, /^warning: signing keys are in the file .*no HSM protects them/m)
  assert.match(dry.stderr, /^ {2}\+ key_manager: \{ disk: \{ *\} \}$/m)
  assert.equal(readFileSync(serverYaml, 'utf8'), text)
})

test('setup server looks at each certificate of a TPM maker, and says what it means to have none', async () => {
  const makers = assay.at('makers')
  mkdirSync(makers)
  const rehearse = (...options: readonly string[]) =>
    setupServer('--trust-domain', 'example.org', '--keys', 'disk', '--dry-run', ...options)
  const none = await rehearse()
  assert.match(none.stderr, /^no makers' certificates: .*approve only hashes/m)
  const admitted = await rehearse('--allow', 'endorsement_ca')
  assert.equal(admitted.status, 2)
  assert.match(admitted.stderr, /needs --endorsement-ca/)
  const empty = await rehearse('--endorsement-ca', makers)
  assert.equal(empty.status, 2)
  assert.match(empty.stderr, /makers holds no certificate/)
  const pem = (der: Uint8Array): string =>
    `-----BEGIN CERTIFICATE-----\n${der.toBase64()}\n-----END CERTIFICATE-----\n`
  writeFileSync(`${makers}/good.crt`, pem(caCertificate({})))
  const good = await rehearse('--endorsement-ca', makers, '--allow', 'endorsement_ca')
  assert.equal(good.status, 0, good.stderr)
  assert.match(good.stderr, /^TPMs of .* are believed, until .*good\.crt\)$/m)
  assert.match(good.stderr, new RegExp(`endorsement_ca: ${makers}`))
  writeFileSync(`${makers}/cut.pem`, pem(caCertificate({}).subarray(0, 60)))
  writeFileSync(`${makers}/leaf.pem`, pem(caCertificate({ extensions: [basicConstraints(false)] })))
  const bad = await rehearse('--endorsement-ca', makers)
  assert.equal(bad.status, 2)
  assert.match(bad.stderr, /cut\.pem: .*; .*leaf\.pem: .* is no certificate authority/s)
})

test('setup server writes server.yaml from answers, and the PIN where the server alone reads it', async () => {
  const answers = assay.at('answers.yaml')
  writeFileSync(answers, `trust_domain: example.org\nkeyz: disk\n`)
  const wrong = await setupServer('--answers', answers)
  assert.equal(wrong.status, 2)
  assert.match(wrong.stderr, /answers\.yaml:2:1: keyz: unknown key; did you mean keys\?/)
  writeFileSync(
    answers,
    `trust_domain: example.org
keys: pkcs11
module: ${module}
token_label: assay
pin_file: ${assay.at('hsm/pin')}
pin_store: file
address: 127.0.0.1:${port}
`,
  )
  const { status, stdout, stderr } = await setupServer('--answers', answers)
  assert.equal(status, 0, stderr)
  assert.match(
    stdout,
    /^on each node: assay setup agent --trust-domain example\.org --server-address 127/m,
  )
  const text = readFileSync(serverYaml, 'utf8')
  assert.match(text, /^# what the site wants$/m)
  assert.match(text, /# not the usual one/)
  const pin = assay.at('hsm-pin')
  assert.equal(statSync(pin).mode & 0o777, 0o400)
  const secret = readFileSync(assay.at('hsm/pin'), 'utf8').trim()
  assert.equal(readFileSync(pin, 'utf8'), secret)
  assert.equal(`${stdout}${stderr}${text}`.includes(secret), false)
  const again = await setupServer('--answers', answers, '--json')
  assert.equal(JSON.parse(again.stdout).changed, false)
  assert.match(again.stderr, /stays as it is/)
  const service = await setupServer('--signer', 'service')
  assert.equal(service.status, 2)
  assert.match(service.stderr, /--signer service is for \/etc\/assay\/server\.yaml/)
  const other = await setupServer('--trust-domain', 'other.org')
  assert.match(other.stderr, /is for the trust domain example\.org, and not other\.org/)
})

test('setup agent believes a server by the fingerprint alone, and the node joins', async () => {
  await start('assay-server', serverYaml)
  const fingerprint = (await assay.assay('bundle', 'fingerprint', ...assay.atServer())).trim()
  const repeated = await setupServer('--json')
  assert.equal(repeated.status, 0, repeated.stderr)
  const told = JSON.parse(repeated.stdout)
  assert.deepEqual(told.fingerprints, [fingerprint])
  const options = [
    '--trust-domain',
    'example.org',
    '--server-address',
    `127.0.0.1:${port}`,
    '--tcti',
    assay.tcti,
  ]
  const without = await setupAgent(...options)
  assert.match(without.stderr, /cannot be recognised without --bundle-fingerprint/)
  const wrong = await setupAgent(...options, '--bundle-fingerprint', '00'.repeat(32))
  assert.equal(wrong.status, 4)
  assert.match(
    wrong.stderr,
    /no authority in it has the fingerprint 0+;.*\[fingerprint-mismatch\]/s,
  )
  assert.equal(existsSync(assay.at('fetched.pem')), false)
  const { status, stdout, stderr } = await setupAgent(
    ...options,
    '--bundle-fingerprint',
    fingerprint,
  )
  assert.equal(status, 0, stderr)
  const [, hash = ''] = /^endorsement key: +([0-9a-f]{64})$/m.exec(stdout) ?? []
  assert.equal(
    readFileSync(assay.at('fetched.pem'), 'utf8'),
    await assay.assay('bundle', 'show', ...assay.atServer()),
  )
  await start('assay-agent', agentYaml)
  await eventually(
    async () => ((await assay.ask('inventory', 'pending')) as readonly unknown[])[0],
    'the TPM',
    50,
  )
  await assay.assay(
    'inventory',
    'approve',
    hash.slice(0, 16),
    '--node-name',
    'n1',
    ...assay.atServer(),
  )
  await eventually(
    async () => ((await assay.ask('agent', 'list')) as readonly unknown[])[0],
    'the node',
    50,
  )
})

// Types answers when it is asked, and says what came to the terminal.
const typist = `
import os, pty, re, sys
pid, fd = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
pairs = [(b'trust domain', b'example.org'), (b'signing keys', b'pkcs11'), (b'PKCS#11', b'${module}'),
  (b'label of the token', b'assay'), (b'PIN of', b'%PIN%'), (b'Keep the PIN', b'file'),
  (b'makers', b'none')]
seen = b''; at = 0
while True:
  try: chunk = os.read(fd, 4096)
  except OSError: break
  if not chunk: break
  seen += chunk
  plain = re.sub(rb'\\x1b\\[[0-9;]*[A-Za-z]', b'', seen[at:])
  if pairs and pairs[0][0] in plain and plain.rstrip(b' ').endswith(b':'):
    at = len(seen); os.write(fd, pairs.pop(0)[1] + b'\\r')
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

test('setup server asks on a terminal, and does not show the PIN', () => {
  const asked = assay.at('asked/server.yaml')
  const pin = 'p1n-4-nobody'
  const args = [`${root}bin/assay`, 'setup', 'server', '--config', asked, '--no-start']
  const said = execFileSync('python3', ['-c', typist.replace('%PIN%', pin), ...args], {
    encoding: 'utf8',
    timeout: 30_000,
  })
  assert.equal(said.includes(pin), false, said)
  assert.equal(readFileSync(assay.at('asked/hsm-pin'), 'utf8'), pin)
  assert.match(readFileSync(asked, 'utf8'), /token_label: assay, pin_file: .*asked\/hsm-pin/)
})
