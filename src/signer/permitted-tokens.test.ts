import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '#config/parse-config.ts'
import { labelPrefixOf } from '#hsm/label-prefix.ts'
import type { OpenRequest } from '#hsm/protocol.ts'
import { serverConfigSchema } from '#server/config.ts'
import { permittedToken } from './permitted-tokens.ts'

const config = (text: string) =>
  parseConfig(serverConfigSchema, `trust_domain: example.org\ndata_dir: /d\n${text}`, {
    file: '/etc/assay/server.yaml',
  })

const both = config(`key_manager:
  pkcs11:
    module: /lib/a.so
    token_label: one
    sessions: 7
    standby: { uri: "pkcs11:token=two;serial=5;model=M;manufacturer=V?module-path=/lib/b.so&pin-source=file:/two-pin" }
upstream_authority:
  pkcs11: { cert_file_path: /ca.pem, module: /lib/c.so, token_label: three, key_label: root }
`)

/** As a server asks that runs with that configuration. */
const asked = (changes: Partial<OpenRequest> = {}): OpenRequest => ({
  module: '/lib/a.so',
  tokenLabel: 'one',
  tokenSerial: undefined,
  tokenModel: undefined,
  tokenManufacturer: undefined,
  pinFile: '',
  pinIsCredential: true,
  spendFinalTry: false,
  labelPrefix: labelPrefixOf('example.org'),
  sessions: 4,
  ...changes,
})
const passed = (name: string) => `/run/credentials/${name}`

test('permittedToken() gives each token with its PIN from where the configuration says', () => {
  const first = permittedToken(asked({ spendFinalTry: true }), both, passed)
  assert.deepEqual(
    [first.pinFile, first.pinIsCredential, first.sessions, first.spendFinalTry],
    ['/run/credentials/hsm-pin', true, 7, true],
  )
  const standby = {
    module: '/lib/b.so',
    tokenLabel: 'two',
    tokenSerial: '5',
    tokenModel: 'M',
    tokenManufacturer: 'V',
  }
  const second = permittedToken(asked(standby), both, passed)
  assert.deepEqual([second.pinFile, second.pinIsCredential], ['/two-pin', false])
  const upstream = { module: '/lib/c.so', tokenLabel: 'three', labelPrefix: 'root' }
  const third = permittedToken(asked(upstream), both, passed)
  assert.deepEqual([third.pinFile, third.sessions], ['/run/credentials/upstream-hsm-pin', 1])
  assert.deepEqual(
    [first, second, third].map((token) => token.isForSigningAlone === true),
    [false, false, true],
  )
})

for (const [field, value] of [
  ['module', '/tmp/mine.so'],
  ['module', '/lib/b.so'],
  ['tokenLabel', 'two'],
  ['tokenSerial', '5'],
  ['tokenModel', 'M'],
  ['tokenManufacturer', 'V'],
  ['labelPrefix', ''],
  ['labelPrefix', 'assay/'],
  ['labelPrefix', 'root'],
] as const)
  test(`permittedToken() refuses a ${field} '${value}' that the configuration does not have there`, () => {
    assert.throws(() => permittedToken(asked({ [field]: value }), both, passed), {
      code: 'failed-precondition',
      message: /no such token/,
    })
  })

test('permittedToken() takes neither PIN file nor number of sessions from the server', () => {
  const request = asked({ pinFile: '/etc/shadow', pinIsCredential: true, sessions: 64 })
  const opened = permittedToken(request, both, passed)
  assert.deepEqual([opened.pinFile, opened.sessions], ['/run/credentials/hsm-pin', 7])
})

test('permittedToken() says which credential is missing', () => {
  assert.throws(() => permittedToken(asked(), both, () => undefined), {
    code: 'failed-precondition',
    message: /no pin_file is set and systemd passes assay-signer no credential hsm-pin$/,
  })
})

test('permittedToken() permits nothing where keys are not in a token', () => {
  assert.throws(() => permittedToken(asked(), config('key_manager: { disk: {} }'), passed), {
    code: 'failed-precondition',
  })
})
