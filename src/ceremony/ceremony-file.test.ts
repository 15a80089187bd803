import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCeremonyFile } from './ceremony-file.ts'
import { planCeremony } from './plan.ts'

const root = `kind: root
trust_domain: example.org
key: { generate: { module: /m.so, token_label: offline, label: root-1, type: ec-p256 } }
certificate:
  serial_number: 5f1ac0d3e8a97b264f105bdc38e97a6b
  not_before: 2026-01-01T00:00:00Z
  not_after: 2046-01-01T00:00:00Z
outputs: { certificate: root.pem, transcript: root.json }
`
const parse = (text: string) => parseCeremonyFile(text, '/ceremony/root.yaml')

test('parseCeremonyFile() reads a ceremony, paths from its own folder', () => {
  const ceremony = parse(root)
  assert.equal(ceremony.certificate.not_after - ceremony.certificate.not_before, 7305 * 86_400)
  assert.equal(ceremony.certificate.serial_number.toHex(), '5f1ac0d3e8a97b264f105bdc38e97a6b')
  assert.equal(ceremony.outputs.certificate, '/ceremony/root.pem')
  assert.equal(ceremony.operators.required, 0)
})

test('planCeremony() comes to the same bytes each time, with zeros for a key to be made', () => {
  for (const type of ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096']) {
    const ceremony = parse(root.replace('ec-p256', type))
    const inputs = { issuer: undefined, publicKey: undefined }
    const plan = planCeremony(ceremony, inputs)
    assert.deepEqual(plan.draft.toBeSigned, planCeremony(ceremony, inputs).draft.toBeSigned)
    assert.ok(plan.hasPlaceholder)
    assert.deepEqual(
      plan.findings.filter(({ problem }) => problem !== undefined),
      [],
    )
    const other = planCeremony(parse(root.replace('ec-p256', type).replace('2046', '2045')), inputs)
    assert.notEqual(other.tbsSha256, plan.tbsSha256)
  }
})

const refused: readonly (readonly [string, (text: string) => string, RegExp])[] = [
  ['an unknown key', (t) => `${t}more: 1\n`, /root\.yaml:\d+:1: .*unknown key/],
  [
    'a PIN in the file',
    (t) => t.replace('label: root-1', 'label: root-1, pin: "1234"'),
    /pin_file/,
  ],
  ['a label with blanks', (t) => t.replace('root-1', '"root 1"'), /without blanks/],
  ['a short serial number', (t) => t.replace('97a6b', ''), /serial_number.*openssl rand/],
  [
    'a serial number that is too long',
    (t) => t.replace('97a6b', `97a6b${'00'.repeat(4)}`),
    /16 to 19/,
  ],
  [
    'a time without zone',
    (t) => t.replace('2026-01-01T00:00:00Z', '2026-01-01T00:00:00'),
    /2026-12-01T/,
  ],
  [
    'fractions of a second',
    (t) => t.replace('2026-01-01T00:00:00Z', '2026-01-01T00:00:00.5Z'),
    /2026-12-01T/,
  ],
  ['an end before the start', (t) => t.replace('2046', '2025'), /not_after is not later/],
  [
    'an intermediate without issuer',
    (t) => t.replace('kind: root', 'kind: intermediate'),
    /issuer: is missing/,
  ],
  [
    'a root with an issuer',
    (t) => `${t}issuer: { module: /m, token_label: t, label: l, certificate_file: c.pem }\n`,
    /issuer: is given/,
  ],
  [
    'a root of another’s key',
    (t) => t.replace(/key: .*/, 'key: { csr: { file: a.csr } }'),
    /a root signs itself/,
  ],
  [
    'more operators than there are',
    (t) => `${t}operators: { required: 1 }\n`,
    /1 must sign and 0 are named/,
  ],
  [
    'an operator whose name is a path',
    (t) => `${t}operators: { required: 1, public_keys: { ../x: a.pub } }\n`,
    /an operator’s name/,
  ],
  ['a hash that is none', (t) => `${t}expect_tbs_sha256: abc\n`, /64 hex digits/],
  ['two keys', (t) => t.replace('key: { ', 'key: { csr: { file: a }, '), /exactly one of/],
]
for (const [what, edit, why] of refused) {
  test(`parseCeremonyFile() refuses ${what}`, () => {
    assert.throws(() => parse(edit(root)), { name: 'ConfigError', message: why })
  })
}
