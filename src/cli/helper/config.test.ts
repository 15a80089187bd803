import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '#config/config-error.ts'
import { parseConfig } from '#config/parse-config.ts'
import { type HelperConfig, helperConfigSchema } from './config.ts'

const parse = (text: string): HelperConfig =>
  parseConfig(helperConfigSchema, `cert_dir: certs\n${text}`, { file: '/etc/assay/helper.yaml' })

test('helperConfigSchema has defaults that keep the key to its owner', () => {
  const config = parse('svid_file_name: svid.pem\nsvid_key_file_name: svid.key\n')
  assert.equal(config.cert_dir, '/etc/assay/certs')
  assert.deepEqual([config.key_file_mode, config.jwt_svid_file_mode], [0o600, 0o600])
  assert.deepEqual([config.cert_file_mode, config.jwt_bundle_file_mode], [0o644, 0o644])
  assert.deepEqual(
    [config.layout, config.renew_signal, config.daemon_mode],
    ['versions', 'SIGHUP', true],
  )
})

test('helperConfigSchema refuses what cannot be meant, and says what may be', () => {
  const file = 'svid_file_name: svid.pem\n'
  const wrong: readonly (readonly [string, RegExp])[] = [
    ['', /names no file to write/],
    ['svid_file_name: a\nsvid_key_file_name: a\n', /two files would have the name 'a'/],
    ['svid_file_name: ../a\n', /:2:17: svid_file_name: is '\.\.\/a'; a name in cert_dir is/],
    ['svid_file_name: .a\n', /begins with a letter or digit/],
    ['svid_file_name: current\n', /is not 'current'/],
    [`${file}key_file_mode: "0888"\n`, /:3:16: key_file_mode: .*in octal, in quotes/],
    [`${file}key_file_mode: "4755"\n`, /in octal/],
    [`${file}reload_command: [nginx, -s, reload]\n`, /begins with the whole path/],
    [`${file}reload_command: []\n`, /begins with the whole path/],
    [`${file}reload_unit: --now\n`, /a unit has its whole name/],
    [
      `${file}reload_unit: a.service\npid_file_name: b\n`,
      /pid_file_name and reload_unit are given/,
    ],
    [`${file}renew_signal: SIGKILL\n`, /renew_signal: .*one of SIGHUP/],
    [`${file}owner: "-x"\n`, /owner: is '-x'/],
    [`${file}cmd: nginx\n`, /:3:1: cmd: unknown key/],
    [`${file}federated_bundle_file_names: { Other: o.pem }\n`, /trust domain/],
  ]
  for (const [text, message] of wrong) {
    assert.throws(
      () => parse(text),
      (error) => error instanceof ConfigError && message.test(error.message),
      text,
    )
  }
})
