import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { oid, sequence } from '#pki/der.ts'
import { attributeType, encodeName } from '#pki/name.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { caProfile, workloadProfile } from './profile.ts'
import { CertificateTemplate } from './template.ts'
import { type ExpectedCertificate, verifyIssued } from './verify-issued.ts'

const newKey = (): Uint8Array =>
  new Uint8Array(
    generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
      format: 'der',
      type: 'spki',
    }),
  )
const issuer = {
  name: encodeName([{ type: attributeType.organization, value: 'Test' }]),
  keyId: Uint8Array.fromHex('00112233'),
  signatureAlgorithm: sequence(oid('1.2.840.10045.4.3.2')),
} as const
const expected = {
  profile: workloadProfile,
  fields: {
    serialNumber: Uint8Array.of(1),
    notBeforeSeconds: 1767225600,
    notAfterSeconds: 1767229200,
    spiffeId: parseSpiffeId('spiffe://example.org/web'),
    dnsNames: ['a.org', 'b.org'],
    publicKey: newKey(),
  },
  issuerName: issuer.name,
  authorityKeyId: issuer.keyId,
} satisfies ExpectedCertificate

const template = new CertificateTemplate(workloadProfile, { issuer, subject: [] })
const der = template.certificate(template.toBeSigned(expected.fields), new Uint8Array(64))

test('verifyIssued() accepts what was meant', () => {
  verifyIssued(der, expected)
})

const fields = (changed: Partial<ExpectedCertificate['fields']>): ExpectedCertificate => ({
  ...expected,
  fields: { ...expected.fields, ...changed },
})
const differences: readonly (readonly [string, ExpectedCertificate])[] = [
  ['SPIFFE ID', fields({ spiffeId: parseSpiffeId('spiffe://example.org/db') })],
  ['list of names', fields({ dnsNames: ['a.org'] })],
  ['DNS names', fields({ dnsNames: ['b.org', 'a.org'] })],
  ['key usage', { ...expected, profile: caProfile('root') }],
  [
    'extended key usage',
    { ...expected, profile: { ...workloadProfile, tlsServerAndClient: false } },
  ],
  ['basic constraints', { ...expected, profile: { ...workloadProfile, isCa: true } }],
  ['start of validity', fields({ notBeforeSeconds: expected.fields.notBeforeSeconds + 1 })],
  ['end of validity', fields({ notAfterSeconds: expected.fields.notAfterSeconds + 1 })],
  ['public key', fields({ publicKey: newKey() })],
  ['issuer', { ...expected, issuerName: encodeName([]) }],
  ['authority key identifier', { ...expected, authorityKeyId: Uint8Array.of(1) }],
  ['authority key identifier', { ...expected, authorityKeyId: undefined }],
]
for (const [what, meant] of differences) {
  test(`verifyIssued() refuses another ${what}`, () => {
    assert.throws(() => verifyIssued(der, meant), {
      code: 'internal',
      reason: 'issued-certificate-wrong',
      message: new RegExp(`its ${what} is not as meant`),
    })
  })
}

test('verifyIssued() refuses what is no certificate', () => {
  assert.throws(() => verifyIssued(der.subarray(0, -1), expected), SyntaxError)
})
