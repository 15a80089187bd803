import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createPrivateKey } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import process from 'node:process'
import { after, before, test } from 'node:test'
import { utf8Bytes, utf8Text } from '#base/bytes.ts'
import { SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { parseCeremonyFile } from '#ceremony/ceremony-file.ts'
import { loadCeremonyInputs } from '#ceremony/inputs.ts'
import { signTranscript } from '#ceremony/operators.ts'
import { planCeremony, sha256 } from '#ceremony/plan.ts'
import { type CeremonyChoices, runCeremony } from '#ceremony/run.ts'
import { loadSignatures, verifyTranscript } from '#ceremony/verify.ts'
import { type CeremonyRoom, newCeremonyRoom, serial } from '../support/ceremony.ts'

let room: CeremonyRoom
const year = new Date().getUTCFullYear()

before(async () => {
  room = await newCeremonyRoom()
  process.env['SOFTHSM2_CONF'] = room.hsm.environment['SOFTHSM2_CONF']
})
after(async () => {
  await room[Symbol.asyncDispose]()
})

const operators = (...names: string[]) => names.map((name) => room.at(`${name}.key`))

async function hold(path: string, choices: Partial<CeremonyChoices> = {}) {
  return await runCeremony(
    { text: await readFile(path, 'utf8'), file: path },
    { operatorKeys: operators('alice', 'bob'), expect: undefined, onStep: () => {}, ...choices },
    {
      clock: new SystemClock(),
      random: new SystemRandom(),
      monotonicMs: () => performance.now(),
      signal: new AbortController().signal,
      askPin: async () => undefined,
    },
  )
}

async function planOf(path: string) {
  const ceremony = parseCeremonyFile(await readFile(path, 'utf8'), path)
  return planCeremony(ceremony, await loadCeremonyInputs(ceremony))
}

const rootLines = (label: string, more = ''): string => `
key: { generate: { ${room.key('offline', label)}, type: ec-p384 } }
certificate:
  serial_number: ${serial('a')}
  not_before: ${year}-01-01T00:00:00Z
  not_after: ${year + 20}-01-01T00:00:00Z
  subject: { country: [US], organization: [Example], common_name: Example Root }
${more}`

const intermediateLines = (key: string, more = ''): string => `
key: { ${key} }
issuer: { ${room.key('offline', 'root-1')}, certificate_file: root.pem }
certificate:
  serial_number: ${serial('b')}
  not_before: ${year}-01-01T00:00:00Z
  not_after: ${year + 5}-01-01T00:00:00Z
  path_length: 1
  subject: { organization: [Example], common_name: Example Server CA }
${more}`

const generated = (label: string): string =>
  `generate: { ${room.key('online', label)}, type: ec-p256 }`

const openssl = (...args: string[]): string =>
  execFileSync('openssl', args, { cwd: room.directory, encoding: 'utf8' })

/** Labels of everything on a token. */
async function labelsOn(token: string): Promise<string[]> {
  const listed = await room.hsm.pkcs11Tool('--token-label', token, '--list-objects')
  return [...new Set([...listed.matchAll(/label: +(\S+)/g)].map(([, label = '']) => label))]
}

test('a ceremony makes a root whose certificate and record OpenSSL agrees with', async () => {
  const path = await room.write('root', 'root', rootLines('root-1'))
  const plan = await planOf(path)
  assert.ok(plan.hasPlaceholder)
  const steps: string[] = []
  const { certificate, transcript, written } = await hold(path, {
    expect: plan.tbsSha256,
    onStep: (what) => steps.push(what),
  })
  assert.equal(steps.length, 3)
  assert.match(steps[1] ?? '', new RegExp(`signing ${certificate.tbs.length} bytes`))
  assert.deepEqual(
    written,
    ['root.pem', 'root.pub.pem', 'root.json', 'root.json.alice.sig', 'root.json.bob.sig'].map(
      room.at,
    ),
  )
  assert.equal(certificate.uris[0], 'spiffe://example.org')
  assert.equal(BigInt(certificate.serialNumber).toString(16), serial('a'))
  assert.equal(transcript.key.on_token?.token_label, 'offline')
  assert.equal(transcript.key.on_token?.id, sha256(transcript.key.public_key).slice(0, 40))
  assert.deepEqual(Object.fromEntries(transcript.key.on_token?.attributes ?? []), {
    CKA_SENSITIVE: true,
    CKA_ALWAYS_SENSITIVE: true,
    CKA_EXTRACTABLE: false,
    CKA_NEVER_EXTRACTABLE: true,
    CKA_LOCAL: true,
    CKA_MODIFIABLE: false,
  })
  openssl('verify', '-x509_strict', '-check_ss_sig', '-CAfile', 'root.pem', 'root.pem')
  const signed = ['-in', 'root.json', '-pubin', '-inkey']
  openssl('pkeyutl', '-verify', '-rawin', ...signed, 'alice.pub', '-sigfile', 'root.json.alice.sig')
  openssl('dgst', '-sha256', '-verify', 'bob.pub', '-signature', 'root.json.bob.sig', 'root.json')
})

test('a ceremony has the offline root sign an intermediate in another token', async () => {
  const path = await room.write('server', 'intermediate', intermediateLines(generated('server-1')))
  await hold(path)
  openssl('verify', '-x509_strict', '-CAfile', 'root.pem', 'server.pem')
  assert.deepEqual(await labelsOn('online'), ['server-1'])
  const document = await readFile(room.at('server.json'))
  const verified = verifyTranscript(document, {
    path: room.at('server.json'),
    signatures: await loadSignatures(document, room.at('server.json')),
    certificate: undefined,
  })
  assert.deepEqual([...verified.signers.keys()], ['alice', 'bob'])
})

test('a key that is there is certified again, and a request and a public key of others', async () => {
  const existing = `existing: { ${room.key('online', 'server-1')}, public_key_file: server.pub.pem }`
  const renewed = await room.write('renewed', 'intermediate', intermediateLines(existing))
  const plan = await planOf(renewed)
  const { transcript } = await hold(renewed)
  // With the key known, what was planned is what was signed.
  assert.equal(transcript.tbs_sha256, plan.tbsSha256)
  openssl('verify', '-x509_strict', '-CAfile', 'root.pem', 'renewed.pem')

  openssl(
    'req',
    '-new',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=x',
    '-keyout',
    'their.key',
    '-out',
    'their.csr',
  )
  openssl('pkey', '-in', 'their.key', '-pubout', '-out', 'their.pub')
  for (const [name, key] of [
    ['csr', 'csr: { file: their.csr }'],
    ['pub', 'public_key: { file: their.pub }'],
  ] as const) {
    const held = await hold(await room.write(name, 'intermediate', intermediateLines(key)))
    assert.equal(held.transcript.key.on_token, undefined)
    openssl('verify', '-x509_strict', '-CAfile', 'root.pem', `${name}.pem`)
  }
})

interface Refusal {
  readonly what: string
  readonly lines: () => string
  readonly kind?: 'root'
  readonly choices?: () => Partial<CeremonyChoices>
  readonly error: { readonly reason?: string; readonly code?: string; readonly message: RegExp }
}

const refusals: readonly Refusal[] = [
  {
    what: 'a label that is on the token',
    lines: () => intermediateLines(generated('server-1')),
    error: { code: 'already-exists', message: /server-1/ },
  },
  {
    what: 'another plan than was agreed to on the command line',
    lines: () => intermediateLines(generated('new')),
    choices: () => ({ expect: '0'.repeat(64) }),
    error: { reason: 'ceremony-unexpected', message: /was agreed to/ },
  },
  {
    what: 'another plan than was agreed to in the file',
    lines: () => intermediateLines(generated('new'), `expect_tbs_sha256: "${'0'.repeat(64)}"`),
    error: { reason: 'ceremony-unexpected', message: /was agreed to/ },
  },
  {
    what: 'too few operators',
    lines: () => intermediateLines(generated('new')),
    choices: () => ({ operatorKeys: operators('alice') }),
    error: { reason: 'ceremony-operators', message: /2 operators must sign and 1 does.*for bob$/ },
  },
  {
    what: 'one operator twice',
    lines: () => intermediateLines(generated('new')),
    choices: () => ({ operatorKeys: operators('alice', 'alice') }),
    error: { reason: 'ceremony-operators', message: /for bob$/ },
  },
  {
    what: 'a stranger',
    lines: () => intermediateLines(generated('new')),
    choices: () => ({ operatorKeys: operators('alice', 'mallory') }),
    error: { reason: 'ceremony-operators', message: /mallory\.key is of no operator/ },
  },
  {
    what: 'an issuer that leaves no room below it',
    lines: () =>
      intermediateLines(generated('new'))
        .replace('root.pem', 'server.pem')
        .replace('path_length: 1', ''),
    error: { reason: 'ceremony-lint', message: /issuer’s is 1/ },
  },
  {
    what: 'another key on the token than the issuer’s',
    lines: () =>
      intermediateLines(generated('new')).replace(
        room.key('offline', 'root-1'),
        room.key('online', 'server-1'),
      ),
    error: { reason: 'ceremony-key', message: /is not that of/ },
  },
  {
    what: 'another key on the token than was reviewed',
    lines: () =>
      intermediateLines(
        `existing: { ${room.key('online', 'server-1')}, public_key_file: their.pub }`,
      ),
    error: { reason: 'ceremony-key', message: /it is not the one in .*their\.pub/ },
  },
  {
    what: 'a key that is not there',
    lines: () =>
      intermediateLines(`existing: { ${room.key('online', 'none')}, public_key_file: their.pub }`),
    error: { reason: 'ceremony-key', message: /no usable key pair/ },
  },
  {
    what: 'an end after the issuer’s',
    lines: () => intermediateLines(generated('new')).replace(`${year + 5}-`, `${year + 21}-`),
    error: { reason: 'ceremony-lint', message: /its issuer ends before it does/ },
  },
  {
    what: 'a certificate that would have expired',
    lines: () =>
      intermediateLines(generated('new'))
        .replace(`${year + 5}-`, `${year}-`)
        .replace(`${year}-01-01T00:00:00Z\n  path`, `${year}-01-01T00:00:01Z\n  path`),
    error: { reason: 'ceremony-lint', message: /expired already/ },
  },
  {
    what: 'a token without PIN',
    lines: () =>
      intermediateLines(generated('new')).replaceAll(`pin_file: ${room.hsm.pinFile}, `, ''),
    error: { reason: 'ceremony-pin', message: /no terminal to ask/ },
  },
]
for (const { what, lines, choices, error } of refusals) {
  test(`a ceremony refuses ${what}, and makes nothing`, async () => {
    const path = await room.write('refused', 'intermediate', lines())
    await assert.rejects(hold(path, choices?.()), error)
    assert.deepEqual(await labelsOn('online'), ['server-1'])
    assert.ok(!existsSync(room.at('refused.pem')))
  })
}

test('a ceremony overwrites nothing', async () => {
  const path = await room.write('server', 'intermediate', intermediateLines(generated('new')))
  await assert.rejects(hold(path), { code: 'already-exists', message: /server\.pem: it is there/ })
})

test('a ceremony that fails destroys the key that it made, or says that it cannot', async () => {
  const path = await room.write('failing', 'intermediate', intermediateLines(generated('failing')))
  for (const at of ['signing', 'writing']) {
    const fail = (what: string): void => {
      if (what.startsWith(at)) throw new Error(`no ${at}`)
    }
    await assert.rejects(hold(path, { onStep: fail }), { message: `no ${at}` })
    assert.deepEqual(await labelsOn('online'), ['server-1'])
    assert.ok(!existsSync(room.at('failing.pem')) && !existsSync(room.at('failing.pem.new')))
  }
  await writeFile(room.at('failing.json.new'), 'in the way')
  await assert.rejects(hold(path), { reason: 'ceremony-output' })
  assert.ok(!existsSync(room.at('failing.pem')))
  assert.deepEqual(await labelsOn('online'), ['server-1'])
})

test('a ceremony that fails leaves the key alone that another one made under the same label', async () => {
  const path = await room.write('failing', 'intermediate', intermediateLines(generated('failing')))
  const ofLabel = ['--token-label', 'online', '--label', 'failing']
  const fail = (what: string): void => {
    if (!what.startsWith('signing')) return
    execFileSync(
      'pkcs11-tool',
      [
        ...['--module', room.hsm.module, '--login', '--pin', room.hsm.pin, ...ofLabel],
        ...['--keypairgen', '--key-type', 'EC:prime256v1', '--id', '07'],
      ],
      { env: { ...process.env, ...room.hsm.environment }, stdio: 'ignore' },
    )
    throw new Error('no signing')
  }
  await assert.rejects(hold(path, { onStep: fail }), { message: 'no signing' })
  const listed = await room.hsm.pkcs11Tool('--token-label', 'online', '--list-objects')
  assert.deepEqual(
    [...listed.matchAll(/label: +failing\s+ID: +(\S+)/g)].map(([, id]) => id),
    ['07', '07'],
  )
  for (const type of ['privkey', 'pubkey']) {
    await room.hsm.pkcs11Tool(...ofLabel, '--delete-object', '--type', type, '--id', '07')
  }
})

test('a ceremony whose token goes away says that a key is left on it', async () => {
  const path = await room.write('lost', 'intermediate', intermediateLines(generated('lost')))
  try {
    const pulled = hold(path, {
      onStep: (what) => {
        if (what.startsWith('signing'))
          execFileSync('mv', [`${room.hsm.directory}/tokens`, `${room.hsm.directory}/tokens.away`])
      },
    })
    await assert.rejects(pulled, {
      reason: 'ceremony-key-left',
      message: /"lost" is still on token "online"/,
    })
  } finally {
    await room.hsm.plug()
  }
  assert.ok((await labelsOn('online')).includes('lost'))
  await room.hsm.pkcs11Tool(
    '--token-label',
    'online',
    '--delete-object',
    '--type',
    'privkey',
    '--label',
    'lost',
  )
})

interface Document {
  file: { text: string; sha256: string }
  key: { made: boolean; on_token?: { attributes: Record<string, boolean> } }
  issuer?: { certificate: string; on_token: object }
  operators: { required: number; signing: Record<string, string> }
  planned_tbs_sha256: string
  tbs: string
  tbs_sha256: string
  certificate: string
  more?: number
}
type Edit = (transcript: Document) => void
const other = (name: string): Document => JSON.parse(readFileSync(room.at(`${name}.json`), 'utf8'))

const forgeries: readonly (readonly [string, RegExp, Edit])[] = [
  [
    'another file',
    /another hash/,
    ({ file }) => void Object.assign(file, { text: `${file.text}\n` }),
  ],
  [
    'another file with its hash',
    /another plan/,
    ({ file }) => {
      file.text = file.text.replace('Example Server CA', 'Another CA')
      file.sha256 = sha256(utf8Bytes(file.text))
    },
  ],
  [
    'fewer operators',
    /wants other operators/,
    ({ operators: given }) => void Object.assign(given, { required: 1 }),
  ],
  [
    'another plan',
    /another plan/,
    (t) => void Object.assign(t, { planned_tbs_sha256: '0'.repeat(64) }),
  ],
  [
    'other bytes',
    /are not those of the file/,
    (t) => void Object.assign(t, { tbs: other('csr').tbs }),
  ],
  [
    'another hash',
    /have another hash/,
    (t) => void Object.assign(t, { tbs_sha256: '0'.repeat(64) }),
  ],
  [
    'another certificate',
    /says something else/,
    (t) => void Object.assign(t, { certificate: other('csr').certificate }),
  ],
  [
    'another signature in the certificate',
    /signature/,
    (t) => {
      const last = t.certificate.endsWith('00') ? '01' : '00'
      t.certificate = t.certificate.slice(0, -2) + last
    },
  ],
  ['no issuer', /issuer does not fit/, (t) => void delete t.issuer],
  [
    'another issuer',
    /cannot be trusted/,
    (t) => {
      if (t.issuer !== undefined) t.issuer.certificate = other('csr').certificate
    },
  ],
  [
    'a key that was there',
    /does not fit the file/,
    ({ key }) => void Object.assign(key, { made: false }),
  ],
  ['no token', /where the key is/, (t) => void delete t.key.on_token],
  [
    'a key that can be taken out',
    /CKA_EXTRACTABLE of server-1/,
    (t) => void Object.assign(t.key.on_token?.attributes ?? {}, { CKA_EXTRACTABLE: true }),
  ],
  [
    'a key of another token',
    /server-1 on token elsewhere .* is not the key of the file/,
    (t) => void Object.assign(t.key.on_token ?? {}, { token_label: 'elsewhere' }),
  ],
  [
    'a key of another label',
    /other on token online .* is not the key of the file/,
    (t) => void Object.assign(t.key.on_token ?? {}, { label: 'other' }),
  ],
  [
    'another key of the issuer',
    /root-1 on token elsewhere .* is not the key of the file/,
    (t) => void Object.assign(t.issuer?.on_token ?? {}, { token_label: 'elsewhere' }),
  ],
  [
    'a token of another serial number',
    /server-1 on token online .* is not the key of the file/,
    ({ file }) => {
      file.text = file.text.replace('token_label: online', 'token_label: online, token_serial: "0"')
      file.sha256 = sha256(utf8Bytes(file.text))
    },
  ],
  ['an unknown member', /unknown key/, (t) => void Object.assign(t, { more: 1 })],
  [
    'an operator of no file',
    /names no operator carol/,
    ({ operators: { signing } }) => void Object.assign(signing, { carol: signing['alice'] }),
  ],
]

test('verifyTranscript() refuses whatever does not hang together, even when operators signed it', async () => {
  const path = room.at('server.json')
  const keyOf = (name: string) => createPrivateKey(readFileSync(room.at(`${name}.key`)))
  for (const [what, message, edit] of forgeries) {
    const transcript = JSON.parse(await readFile(path, 'utf8'))
    edit(transcript)
    const document = utf8Bytes(JSON.stringify(transcript))
    const signatures = new Map(
      ['alice', 'bob'].map((name) => [name, signTranscript(keyOf(name), document)]),
    )
    assert.throws(
      () => verifyTranscript(document, { path, signatures, certificate: undefined }),
      { reason: 'transcript-wrong', message },
      what,
    )
  }
})

test('verifyTranscript() refuses a token where the file has a public key alone', async () => {
  const transcript = other('csr')
  const { on_token } = other('server').key
  Object.assign(transcript.key, { on_token })
  const document = utf8Bytes(JSON.stringify(transcript))
  assert.throws(
    () =>
      verifyTranscript(document, {
        path: room.at('csr.json'),
        signatures: new Map(),
        certificate: undefined,
      }),
    { reason: 'transcript-wrong', message: /the file does not place server-1 on a token/ },
  )
})

test('verifyTranscript() refuses signatures that are missing, of another, or over another document', async () => {
  const path = room.at('server.json')
  const document = new Uint8Array(await readFile(path))
  const signatures = await loadSignatures(document, path)
  const options = { path, signatures, certificate: undefined }
  assert.ok(verifyTranscript(document, options))
  const refuses = (
    given: Partial<typeof options>,
    message: RegExp,
    of: Uint8Array = document,
  ): void =>
    void assert.throws(() => verifyTranscript(of, { ...options, ...given }), {
      reason: 'transcript-wrong',
      message,
    })
  refuses({ signatures: new Map([...signatures].slice(0, 1)) }, /signature of bob is missing/)
  const swapped = [...signatures.keys()].map((name, i, names) => {
    const another = signatures.get(names[1 - i] ?? '') ?? new Uint8Array()
    return [name, another] as const
  })
  refuses({ signatures: new Map(swapped) }, /not by that key/)
  refuses({}, /signature of alice is not by that key/, utf8Bytes(`${utf8Text(document)} `))
  assert.throws(
    () =>
      verifyTranscript(document, {
        ...options,
        certificate: Uint8Array.fromHex(other('csr').certificate),
      }),
    { reason: 'transcript-wrong', message: /handed over is another one/ },
  )
})
