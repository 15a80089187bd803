import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '#config/config-error.ts'
import { parseConfig } from '#config/parse-config.ts'
import { configWarnings, pqParameterSet, type ServerConfig, serverConfigSchema } from './config.ts'

const parse = (text: string): ServerConfig =>
  parseConfig(serverConfigSchema, text, { file: '/etc/assay/server.yaml' })

const least = 'trust_domain: example.org\ndata_dir: /var/lib/assay/server\n'

test('serverConfigSchema fills in the defaults, those that follow from other keys included', () => {
  const config = parse(`${least}key_manager: { disk: {} }\n`)
  assert.equal(config.bind_port, 8081)
  assert.equal(config.ca_ttl, 86_400)
  assert.equal(config.agent_ttl, 3600)
  assert.equal(config.jwt_key_type, 'ec-p256')
  assert.deepEqual(config.datastore, {
    kind: 'sqlite',
    path: '/var/lib/assay/server/datastore.sqlite3',
  })
  assert.deepEqual(config.key_manager, { kind: 'disk', path: '/var/lib/assay/server/keys.json' })
  assert.deepEqual(config.ratelimit, { attestation: true, signing: true })
  assert.equal(config.health_checks, undefined)
})

test('serverConfigSchema reads every key of a full configuration', () => {
  const config = parse(`
trust_domain: example.org
data_dir: data
bind_address: 127.0.0.1
bind_port: 8081
socket_path: /run/assay/server.sock
ca_ttl: 24h
default_x509_svid_ttl: 1h
default_jwt_svid_ttl: 5m
datastore: { sqlite: { path: /var/lib/assay/server/datastore.sqlite3 } }
key_manager: { pkcs11: { module: /usr/lib/softhsm/libsofthsm2.so, token_label: assay, pin_file: hsm-pin } }
node_attestors:
  tpm: { endorsement_ca: tpm-ca/, allow: inventory }
  join_token: {}
ratelimit: { attestation: true, signing: false }
health_checks: { bind_address: 127.0.0.1, bind_port: 8082 }
telemetry: { prometheus: { bind_address: 127.0.0.1, port: 9988 } }
log_level: info
admin_ids: [ 'spiffe://example.org/ops' ]
`)
  assert.equal(config.data_dir, '/etc/assay/data')
  assert.deepEqual(config.key_manager, {
    kind: 'pkcs11',
    module: '/usr/lib/softhsm/libsofthsm2.so',
    token_label: 'assay',
    token_serial: undefined,
    token_model: undefined,
    token_manufacturer: undefined,
    pin_file: '/etc/assay/hsm-pin',
    sessions: 4,
    standby: undefined,
  })
  assert.equal(config.node_attestors.tpm?.endorsement_ca, '/etc/assay/tpm-ca')
  assert.equal(config.ratelimit.signing, false)
})

test('serverConfigSchema names every mistake with its place', () => {
  assert.throws(
    () => parse('trust_domain: Example.org\nbind_prot: 1\nca_ttl: 1d\nkey_manager: {}\n'),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError)
      assert.deepEqual(error.problems.map(({ line, key }) => `${line} ${key}`).sort(), [
        '1 data_dir',
        '1 trust_domain',
        '2 bind_prot',
        '3 ca_ttl',
        '4 key_manager',
      ])
      return true
    },
  )
})

test('serverConfigSchema has P-384 keys alone with the crypto_profile cnsa2', () => {
  const cnsa2 = `${least}key_manager: { memory: {} }\ncrypto_profile: cnsa2\n`
  const { ca_key_type, jwt_key_type } = parse(cnsa2)
  assert.deepEqual([ca_key_type, jwt_key_type], ['ec-p384', 'ec-p384'])
  assert.throws(() => parse(`${cnsa2}ca_key_type: rsa-4096\n`), /ca_key_type is rsa-4096, and/)
  assert.throws(() => parse(`${cnsa2}jwt_key_type: ec-p256\n`), /jwt_key_type is ec-p256, and/)
})

test('pq_signatures is refused below an upstream authority, which signs classically', () => {
  const upstream =
    'upstream_authority: { disk: { cert_file_path: /etc/assay/ca.pem, key_file_path: /etc/assay/ca.key } }\n'
  assert.equal(parse(`${least}key_manager: { disk: {} }\n${upstream}`).pq_signatures, 'off')
  for (const set of ['', 'pq_parameter_set: ml-dsa-87\n']) {
    assert.throws(
      () => parse(`${least}key_manager: { disk: {} }\n${upstream}pq_signatures: hybrid\n${set}`),
      (error) =>
        error instanceof ConfigError &&
        /upstream_authority signs .* classically alone.*leave one of the two out/.test(
          error.message,
        ),
    )
  }
})

test('pq_signatures is off by default; the parameter set follows the crypto_profile', () => {
  const least_ = `${least}key_manager: { memory: {} }\n`
  const of = (lines: string) => pqParameterSet(parse(`${least_}${lines}`))
  assert.equal(of(''), undefined)
  assert.equal(of('pq_signatures: hybrid'), 'ml-dsa-44')
  assert.equal(of('pq_signatures: hybrid\npq_parameter_set: ml-dsa-65'), 'ml-dsa-65')
  assert.equal(of('pq_signatures: hybrid\ncrypto_profile: cnsa2'), 'ml-dsa-87')
  assert.throws(
    () => of('crypto_profile: cnsa2\npq_parameter_set: ml-dsa-44'),
    /pq_parameter_set is ml-dsa-44, and/,
  )
})

test('serverConfigSchema reads a token from a PKCS#11 URI, and from nothing beside it', () => {
  const keyManager = (settings: string) =>
    parse(`${least}key_manager: { pkcs11: { ${settings} } }\n`).key_manager
  const uri =
    '"pkcs11:token=assay;serial=0a?module-path=/usr/lib/m.so&pin-source=file:/etc/assay/hsm-pin"'
  assert.deepEqual(keyManager(`uri: ${uri}`), {
    kind: 'pkcs11',
    module: '/usr/lib/m.so',
    token_label: 'assay',
    token_serial: '0a',
    token_model: undefined,
    token_manufacturer: undefined,
    pin_file: '/etc/assay/hsm-pin',
    sessions: 4,
    standby: undefined,
  })
  for (const [settings, why] of [
    [`uri: ${uri}, pin_file: /p`, /the uri says which token and PIN file/],
    [`uri: ${uri}, module: /m`, /exactly one of uri, module must be given/],
    ['module: /m', /token_label is missing/],
    ['module: /m, token_label: t, sessions: 65', /sessions: is 65/],
    ['token_label: t', /exactly one of uri, module must be given/],
    ['uri: "pkcs11:token=t?module-path=/m&pin-value=1234"', /pin-value is refused: a PIN is never/],
  ] as const) {
    assert.throws(() => keyManager(settings), why)
  }
})

test('serverConfigSchema reads a second token, by keys or by URI', () => {
  const standby = (settings: string) => {
    const first = 'module: /m, token_label: t'
    const config = parse(
      `${least}key_manager: { pkcs11: { ${first}, standby: { ${settings} } } }\n`,
    )
    return config.key_manager.kind === 'pkcs11' ? config.key_manager.standby : undefined
  }
  assert.equal(standby('module: /m, token_label: u')?.promote_after, 300)
  const byUri = standby('uri: "pkcs11:token=u?module-path=/n", promote_after: 1h, sessions: 8')
  assert.deepEqual(
    [byUri?.token_label, byUri?.module, byUri?.promote_after, byUri?.sessions],
    ['u', '/n', 3600, 8],
  )
  assert.throws(() => standby('module: /m'), /standby: token_label is missing/)
  assert.throws(() => standby('module: /m, token_label: u, promote_after: 1s'), /promote_after/)
})

test('serverConfigSchema has no default key manager', () => {
  assert.throws(() => parse(least), /key_manager: is missing/)
})

test('configWarnings() speaks of keys outside an HSM, of long lifetimes and of foreign admins', () => {
  const warnings = configWarnings(
    parse(
      `${least}ca_ttl: 1h\nkey_manager: { memory: {} }\nadmin_ids: ['spiffe://other.org/ops']\n`,
    ),
  )
  for (const part of ['memory', 'default_x509_svid_ttl', 'agent_ttl', 'no node', 'other.org']) {
    assert.ok(
      warnings.some((warning) => warning.includes(part)),
      `no warning about ${part}`,
    )
  }
  const safe = `${least}key_manager: { pkcs11: { module: /m, token_label: t, pin_file: /p } }\nnode_attestors: { join_token: {} }\n`
  assert.deepEqual(configWarnings(parse(safe)), [])
})

test('serverConfigSchema reads how TPMs are judged, and refuses what no TPM has', () => {
  const tpm = (text: string): unknown =>
    parse(`${least}key_manager: { memory: {} }\nnode_attestors: { tpm: { ${text} } }\n`)
      .node_attestors.tpm
  assert.deepEqual(tpm('expiry: enforce, tolerate: [], pcrs: [0, 7]'), {
    endorsement_ca: undefined,
    allow: 'inventory',
    expiry: 'enforce',
    tolerate: [],
    pcrs: [0, 7],
  })
  for (const wrong of ['pcrs: [24]', 'tolerate: [anything]', 'expiry: never'])
    assert.throws(() => tpm(wrong), ConfigError)
})

test('serverConfigSchema reads administrators, and refuses those that are nobody or may do nothing', () => {
  const config = parse(`${least}key_manager: { memory: {} }
administrators:
  - unix_user: alice
  - { unix_group: '2000', calls: [read, Entry/*] }
  - { spiffe_id: 'spiffe://b.org/ops', spiffe_id_prefixes: ['spiffe://example.org/web/', 'spiffe://example.org'] }
`)
  const [alice, group, ops] = config.administrators ?? []
  assert.deepEqual([alice?.calls, alice?.spiffe_id_prefixes], ['all', undefined])
  assert.ok(group?.calls instanceof Set)
  assert.deepEqual(ops?.spiffe_id_prefixes, ['spiffe://example.org/web', 'spiffe://example.org'])
  assert.match(configWarnings(config).join(), /administrators has an ID of another trust domain/)
  for (const [row, message] of [
    ['{}', /exactly one of unix_user, unix_group, spiffe_id must be given/],
    ["{ unix_user: a, spiffe_id: 'spiffe://example.org/a' }", /exactly one of/],
    ['{ unix_user: a, calls: [] }', /names no call/],
    ['{ unix_user: a, calls: [nods] }', /did you mean nodes\?/],
    ['{ unix_user: a, spiffe_id_prefixes: [] }', /names no SPIFFE ID/],
    [
      "{ unix_user: a, spiffe_id_prefixes: ['spiffe://b.org/web'] }",
      /not of the trust domain example.org/,
    ],
    [
      "{ unix_user: a, spiffe_id_prefixes: ['spiffe://example.org/web//'] }",
      /path segment is empty/,
    ],
    ["{ unix_user: a, spiffe_id_prefixes: ['spiffe://example.org/w*'] }", /invalid SPIFFE ID/],
  ] as const) {
    const text = `${least}key_manager: { memory: {} }\nadministrators: [${row}]\n`
    assert.throws(() => parse(text), { name: 'ConfigError', message })
  }
})
