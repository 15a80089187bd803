// An offline root signs an intermediate, a server runs below it, and the intermediate is renewed under its feet.
import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import process from 'node:process'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import { parsePem } from '#pki/pem.ts'
import { type Client, expectEvent, goClient, run } from '../conformance/clients.ts'
import { Installation } from '../support/installation.ts'

const root = new URL('../..', import.meta.url).pathname
const module = '/usr/lib/softhsm/libsofthsm2.so'
const year = new Date().getUTCFullYear()
let assay: Installation
let go: Client

const openssl = (...args: string[]): string =>
  execFileSync('openssl', args, { cwd: assay.directory, encoding: 'utf8' })

before(async () => {
  go = goClient()
  assay = new Installation()
  await assay.makeToken()
  process.env['SOFTHSM2_CONF'] = assay.at('hsm/softhsm2.conf')
  const pin = readFileSync(assay.at('hsm/pin'), 'utf8')
  for (const label of ['offline', 'online']) {
    const init = ['--init-token', '--free', '--label', label, '--pin', pin, '--so-pin', pin]
    execFileSync('softhsm2-util', init, { stdio: 'ignore' })
  }
  for (const name of ['alice', 'bob']) {
    openssl('genpkey', '-algorithm', 'ed25519', '-out', `${name}.key`)
    openssl('pkey', '-in', `${name}.key`, '-pubout', '-out', `${name}.pub`)
  }
})

after(async () => {
  await assay[Symbol.asyncDispose]()
})

interface Ceremony {
  readonly kind: 'root' | 'intermediate'
  readonly key: string
  readonly serial: string
  readonly years: number
  readonly withPin?: boolean
}

const place = (token: string, label: string, withPin = true): string =>
  `module: ${module}, token_label: ${token}, label: ${label}${withPin ? ', pin_file: hsm/pin' : ''}`

function write(name: string, { kind, key, serial, years, withPin }: Ceremony): string {
  const issuer =
    kind === 'root'
      ? ''
      : `issuer: { ${place('offline', 'root-1', withPin)}, certificate_file: root.pem }\n`
  writeFileSync(
    assay.at(`${name}.yaml`),
    `kind: ${kind}
trust_domain: example.org
key: { ${key} }
${issuer}certificate:
  serial_number: ${serial}
  not_before: ${year}-01-01T00:00:00Z
  not_after: ${year + years}-01-01T00:00:00Z
  subject: { organization: [Example], common_name: Example ${name} }
outputs: { certificate: ${name}.pem, public_key: ${name}.pub.pem, transcript: ${name}.json }
operators: { required: 2, public_keys: { alice: alice.pub, bob: bob.pub } }
`,
  )
  return assay.at(`${name}.yaml`)
}

const operators = () => [
  '--operator-key',
  assay.at('alice.key'),
  '--operator-key',
  assay.at('bob.key'),
]

test('a root is planned without PIN, agreed to by its hash, made, and verified', async () => {
  const key = `generate: { ${place('offline', 'root-1')}, type: ec-p384 }`
  const file = write('root', {
    kind: 'root',
    key,
    serial: '5f1ac0d3e8a97b264f105bdc38e97a6b',
    years: 20,
  })
  const planned = await assay.assay('ceremony', 'plan', file)
  assert.match(planned, /serial number +5f1ac0d3e8a97b264f105bdc38e97a6b/)
  assert.match(planned, /public key +P-384, made in the ceremony/)
  const [, hash = ''] = /SHA-256 of these bytes +([0-9a-f]{64})/.exec(planned) ?? []
  const asJson = JSON.parse(await assay.assay('ceremony', 'plan', file, '--json'))
  assert.equal(asJson.tbs_sha256, hash)

  const alone = await assay.tryAssay('ceremony', 'run', file, ...operators().slice(0, 2))
  assert.equal(alone.status, 1)
  assert.match(alone.stderr, /also for bob \[ceremony-operators\]/)
  const other = await assay.tryAssay(
    'ceremony',
    'run',
    file,
    '--expect',
    'ab'.repeat(32),
    ...operators(),
  )
  assert.match(other.stderr, /\[ceremony-unexpected\]/)

  const made = JSON.parse(
    await assay.assay('ceremony', 'run', file, '--expect', hash, ...operators(), '--json'),
  )
  assert.deepEqual(made.operators, ['alice', 'bob'])
  const verified = JSON.parse(
    await assay.assay('ceremony', 'verify', assay.at('root.json'), '--json'),
  )
  assert.equal(verified.tbs_sha256, made.tbs_sha256)
  assert.equal(verified.key.label, 'root-1')
  openssl('verify', '-x509_strict', '-CAfile', 'root.pem', 'root.pem')

  const again = await assay.tryAssay('ceremony', 'run', file, ...operators())
  assert.match(again.stderr, /root\.pem: it is there already/)
})

test('a plan that breaks a rule says so and is not run', async () => {
  const key = `generate: { ${place('offline', 'root-2')}, type: ec-p384 }`
  const file = write('long', {
    kind: 'root',
    key,
    serial: '5f1ac0d3e8a97b264f105bdc38e97a6c',
    years: 31,
  })
  const { status, stdout, stderr } = await assay.tryAssay('ceremony', 'plan', file)
  assert.equal(status, 1)
  assert.match(stdout, /BROKEN {2}it lasts no longer than 30 years.*: it lasts longer/)
  assert.match(stderr, /would not be signed/)
  const refused = await assay.tryAssay('ceremony', 'run', file, ...operators())
  assert.match(refused.stderr, /\[ceremony-lint\]/)
})

const noScript = spawnSync('script', ['--version']).status === 0 ? false : 'script(1) is missing'

test('a PIN is asked for on the terminal and not shown, and nothing of it is left', {
  skip: noScript,
}, async () => {
  const key = `generate: { ${place('online', 'server-1', false)}, type: ec-p256 }`
  const file = write('server', {
    kind: 'intermediate',
    key,
    serial: '5f1ac0d3e8a97b264f105bdc38e97a6d',
    years: 3,
    withPin: false,
  })
  const command = [`${root}bin/assay`, 'ceremony', 'run', file, ...operators()].join(' ')
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const pin = readFileSync(assay.at('hsm/pin'), 'utf8').trim()
  let shown = ''
  let answered = 0
  child.stdout.on('data', (chunk: Uint8Array) => {
    shown += new TextDecoder().decode(chunk)
    const asked = shown.match(/PIN of token "[a-z]+"/g)?.length ?? 0
    if (asked <= answered) return
    answered = asked
    child.stdin.write(`${pin}x\x7f\r`)
  })
  await text(child.stdout)
  assert.match(
    shown,
    /PIN of token "offline"[\s\S]*PIN of token "online"[\s\S]*wrote .*server\.pem/,
  )
  assert.ok(!shown.includes(pin), 'the PIN was shown')
  for (const directory of ['/dev/shm', process.env['XDG_RUNTIME_DIR'] ?? '/dev/shm']) {
    const left = existsSync(directory) ? readdirSync(directory) : []
    assert.deepEqual(
      left.filter((name) => name.startsWith('assay-pin-')),
      [],
    )
  }
  openssl('verify', '-x509_strict', '-CAfile', 'root.pem', 'server.pem')
})

/** The certificates a workload gets, root last, as OpenSSL sees them. */
async function fetchedChain(): Promise<Uint8Array[]> {
  await assay.assay('fetch', 'x509', '--write', assay.at('svids'), ...assay.atAgent())
  const found = readdirSync(assay.at('svids'))
  const svid = found.find((name) => /^svid.*\.pem$/.test(name)) ?? ''
  const bundle = found.find((name) => /^bundle.*\.pem$/.test(name)) ?? ''
  openssl(
    'verify',
    '-x509_strict',
    '-CAfile',
    `svids/${bundle}`,
    '-untrusted',
    `svids/${svid}`,
    `svids/${svid}`,
  )
  return [svid, bundle].flatMap((name) =>
    parsePem(readFileSync(assay.at(`svids/${name}`)), 'CERTIFICATE'),
  )
}

test('a server runs below the intermediate, and its workloads are accepted by the root', async () => {
  if (!existsSync(assay.at('server.pem'))) {
    const key = `generate: { ${place('online', 'server-1')}, type: ec-p256 }`
    const file = write('server', {
      kind: 'intermediate',
      key,
      serial: '5f1ac0d3e8a97b264f105bdc38e97a6d',
      years: 3,
    })
    await assay.assay('ceremony', 'run', file, ...operators())
  }
  copyFileSync(assay.at('server.pem'), assay.at('upstream.pem'))
  await assay.startServer(
    'pkcs11',
    `upstream_authority: { pkcs11: { module: ${module}, token_label: online, pin_file: ${assay.at('hsm/pin')}, key_label: server-1, cert_file_path: ${assay.at('upstream.pem')}, bundle_file_path: ${assay.at('root.pem')} } }\n`,
  )
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  await assay.startAgent(`join_token: { token: ${token} }`)
  const [node] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  await assay.createEntry(node?.id ?? '', assay.id('/web'), `unix:uid:${process.getuid?.()}`)
  const [leaf, authority, intermediate, top, ...more] = await fetchedChain()
  assert.deepEqual(more, [])
  assert.equal(parseCertificate(leaf ?? new Uint8Array()).uris[0], assay.id('/web'))
  assert.equal(parseCertificate(authority ?? new Uint8Array()).uris[0], 'spiffe://example.org')
  const [server] = parsePem(readFileSync(assay.at('server.pem')), 'CERTIFICATE')
  assert.deepEqual(intermediate, server)
  const [rootCertificate] = parsePem(readFileSync(assay.at('root.pem')), 'CERTIFICATE')
  assert.deepEqual(top, rootCertificate)
})

test('go-spiffe workloads talk mutual TLS over the chain while the intermediate is renewed and keys rotate', {
  timeout: 60_000,
}, async (t) => {
  if (go.missing !== undefined) return t.skip(go.missing)
  const stop = new AbortController()
  const server = run(go, ['serve', assay.workloadSocket, assay.id('/web')], { signal: stop.signal })
  const address = String((await expectEvent(server, 'listening'))['address'])
  const greet = async (): Promise<void> => {
    const caller = run(go, ['call', assay.workloadSocket, address, assay.id('/web')], {})
    assert.equal((await expectEvent(caller, 'greeted'))['text'], 'hello\n')
  }
  try {
    await greet()
    const key = `existing: { ${place('online', 'server-1')}, public_key_file: server.pub.pem }`
    const file = write('renewed', {
      kind: 'intermediate',
      key,
      serial: '5f1ac0d3e8a97b264f105bdc38e97a6e',
      years: 6,
    })
    await assay.assay('ceremony', 'run', file, ...operators())
    copyFileSync(assay.at('renewed.pem'), assay.at('upstream.pem'))
    await assay.assay('hsm', 'rotate', 'x509', ...assay.atServer())
    await greet()
    // What is signed now is below the renewed intermediate; what was signed before still counts.
    await assay.assay(
      ...['x509', 'mint', '--spiffe-id', assay.id('/new'), '--write', assay.at('minted')],
      ...assay.atServer(),
    )
    const chain = readFileSync(assay.at('minted/svid.pem'), 'utf8')
    assert.ok(chain.endsWith(readFileSync(assay.at('renewed.pem'), 'utf8')))
    const minted = 'minted/svid.pem'
    openssl('verify', '-x509_strict', '-CAfile', 'root.pem', '-untrusted', minted, minted)
    await greet()
  } finally {
    stop.abort()
  }
})
