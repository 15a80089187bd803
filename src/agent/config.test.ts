import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '#config/parse-config.ts'
import { agentConfigSchema, configWarnings } from './config.ts'

const minimal = `
trust_domain: example.org
data_dir: /var/lib/assay/agent
server_address: 127.0.0.1
trust_bundle_path: bundle.pem
node_attestor: { tpm: {} }
`
const parse = (text: string) =>
  parseConfig(agentConfigSchema, text, { file: '/etc/assay/agent.yaml' })
const without = (key: string): string =>
  minimal
    .split('\n')
    .filter((line) => !line.startsWith(key))
    .join('\n')

test('agentConfigSchema fills in every default', () => {
  const config = parse(minimal)
  assert.equal(config.server_port, 8081)
  assert.equal(config.trust_bundle_path, '/etc/assay/bundle.pem')
  assert.equal(config.socket_path, '/run/assay/agent/api.sock')
  assert.equal(config.admin_socket_path, undefined)
  assert.deepEqual(config.node_attestor, { kind: 'tpm', tcti: 'device:/dev/tpmrm0' })
  assert.equal(config.workload_attestors.unix.workload_size_limit, 512 * 2 ** 20)
  assert.equal(config.x509_svid_cache_max_size, 1000)
  assert.equal(config.sync_interval, 5)
  assert.deepEqual(configWarnings(config), [])
})

test('agentConfigSchema has P-384 keys alone with the crypto_profile cnsa2', () => {
  const cnsa2 = `${minimal}crypto_profile: cnsa2\n`
  assert.equal(parse(minimal).workload_x509_svid_key_type, 'ec-p256')
  assert.equal(parse(cnsa2).workload_x509_svid_key_type, 'ec-p384')
  const other = `${cnsa2}workload_x509_svid_key_type: rsa-2048\n`
  assert.throws(() => parse(other), /workload_x509_svid_key_type is rsa-2048, and/)
})

test('agentConfigSchema wants exactly one way to trust the server', () => {
  assert.throws(() => parse(without('trust_bundle_path')), /exactly one of trust_bundle_path/)
  assert.throws(() => parse(`${minimal}insecure_bootstrap: true\n`), /exactly one of/)
  assert.throws(
    () => parse(`${without('trust_bundle_path')}\ninsecure_bootstrap: false\n`),
    /insecure_bootstrap is false/,
  )
})

test('agentConfigSchema refuses a bundle address that is not https', () => {
  const written = `${without('trust_bundle_path')}\ntrust_bundle_url: http://example.org/bundle\n`
  assert.throws(() => parse(written), /https:\/\//)
})

test('agentConfigSchema refuses an administration socket in, or under, a directory of the Workload API', () => {
  for (const admin of ['/run/assay/agent/admin.sock', '/run/assay/agent/private/admin.sock']) {
    assert.throws(() => parse(`${minimal}admin_socket_path: ${admin}\n`), /admin_socket_path/)
  }
  const aliased = `${minimal}socket_aliases: [/run/spire/agent/public/api.sock]\nadmin_socket_path: /run/spire/agent/public/admin.sock\n`
  assert.throws(() => parse(aliased), /choose another directory/)
  const config = parse(`${minimal}admin_socket_path: /run/assay/agent-admin/admin.sock\n`)
  assert.equal(config.admin_socket_path, '/run/assay/agent-admin/admin.sock')
})

test('agentConfigSchema wants one join token, inline or in a file', () => {
  const attestor = (text: string) =>
    `${without('node_attestor')}\nnode_attestor: { join_token: ${text} }\n`
  assert.throws(() => parse(attestor('{}')), /exactly one of token, token_file/)
  assert.throws(() => parse(attestor('{ token: a, token_file: b }')), /exactly one of/)
  const config = parse(attestor('{ token_file: token }'))
  assert.deepEqual(config.node_attestor, {
    kind: 'join_token',
    token: undefined,
    token_file: '/etc/assay/token',
  })
})

test('configWarnings() warns of what weakens the node', () => {
  const config = parse(
    `${without('trust_bundle_path').replace('{ tpm: {} }', '{ join_token: { token: t } }')}
insecure_bootstrap: true
workload_attestors: { unix: { foreign_mount_namespaces: true } }
`,
  )
  assert.equal(configWarnings(config).length, 3)
})
