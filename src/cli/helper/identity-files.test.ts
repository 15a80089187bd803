import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8Text } from '#base/bytes.ts'
import { parseConfig } from '#config/parse-config.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { parsePem } from '#pki/pem.ts'
import { exportPkcs8 } from '#pki/private-key.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import {
  newAuthority,
  newIntermediate,
  newSvid,
  nowSeconds,
} from '../../../test/support/certificates.ts'
import { helperConfigSchema } from './config.ts'
import { type Identities, reloadedFiles } from './identity-files.ts'

const root = newAuthority('example.org')
const past = newAuthority('example.org', {
  notBeforeSeconds: nowSeconds - 7200,
  notAfterSeconds: nowSeconds - 3600,
})
const other = newAuthority('other.org')
const intermediate = newIntermediate(root, 'example.org')
const own = parseTrustDomain('example.org')
const others = parseTrustDomain('other.org')

function svid(path: string, hint: string) {
  const { certificate, key } = newSvid(intermediate, `spiffe://example.org${path}`)
  return {
    spiffeId: parseSpiffeId(`spiffe://example.org${path}`),
    certificates: [certificate, intermediate.certificate].map((der) => parseCertificate(der)),
    privateKey: exportPkcs8(key.privateKey),
    hint,
  }
}
const [web, db] = [svid('/web', ''), svid('/db', 'internal')]

const identities: Identities = {
  x509: {
    svids: [web, db],
    bundles: new Map([
      [others, [other.certificate]],
      [own, [root.certificate, past.certificate]],
    ]),
  },
  // Another trust domain comes first: a map on the wire has no order.
  jwtBundles: new Map([
    [others, '{"keys":[2]}'],
    [own, '{"keys":[1]}'],
  ]),
  jwtSvids: new Map(),
}

function made(lines: string) {
  const config = parseConfig(helperConfigSchema, `cert_dir: x\n${lines}`, { file: 'helper.yaml' })
  const { files, notes } = reloadedFiles(config, identities, nowSeconds)
  return {
    notes,
    text: (name: string): string => {
      const found = files.find((file) => file.name === name)
      return found === undefined ? 'absent' : utf8Text(found.content)
    },
    ders: (name: string): readonly string[] => {
      const found = files.find((file) => file.name === name)
      return parsePem(found?.content ?? '', 'CERTIFICATE').map((der) => der.toHex())
    },
  }
}
const hex = (...ders: readonly Uint8Array[]): readonly string[] => ders.map((der) => der.toHex())
const [leaf] = web.certificates

test('reloadedFiles() puts intermediates beside the certificate, or into the bundle', () => {
  const names = 'svid_file_name: s\nsvid_bundle_file_name: b\n'
  const usual = made(names)
  assert.deepEqual(usual.ders('s'), hex(leaf?.raw ?? root.certificate, intermediate.certificate))
  assert.deepEqual(usual.ders('b'), hex(root.certificate, past.certificate))
  const moved = made(`${names}add_intermediates_to_bundle: true\nomit_expired: true\n`)
  assert.deepEqual(moved.ders('s'), hex(leaf?.raw ?? root.certificate))
  assert.deepEqual(moved.ders('b'), hex(intermediate.certificate, root.certificate))
})

test('reloadedFiles() keeps other trust domains out of the bundle unless told otherwise', () => {
  const names = 'svid_bundle_file_name: b\nomit_expired: true\n'
  assert.deepEqual(made(names).ders('b'), hex(root.certificate))
  const both = made(`${names}include_federated_domains: true\n`)
  assert.deepEqual(both.ders('b'), hex(root.certificate, other.certificate))
  const apart = made('federated_bundle_file_names: { other.org: o, third.org: t }\n')
  assert.deepEqual(apart.ders('o'), hex(other.certificate))
  assert.deepEqual(apart.notes, ['t: the agent gives no bundle of third.org'])
})

test('reloadedFiles() writes the JWK set of the own trust domain, and others apart', () => {
  const { text, notes } = made(
    'jwt_bundle_file_name: j\nfederated_jwt_bundle_file_names: { other.org: o }\n',
  )
  assert.deepEqual([text('j'), text('o'), notes], ['{"keys":[1]}', '{"keys":[2]}', []])
})

test('reloadedFiles() takes the identity with the hint, and says which there are', () => {
  const file = 'svid_file_name: s\nsvid_key_file_name: k\n'
  const { ders } = made(`${file}hint: internal\n`)
  assert.deepEqual(ders('s')[0], db.certificates[0]?.raw.toHex())
  assert.throws(
    () => made(`${file}hint: extern\n`),
    /has the hint 'extern'; there are '', 'internal'/,
  )
})
