import assert from 'node:assert/strict'
import { generateKeyPairSync, sign, X509Certificate } from 'node:crypto'
import { test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import { oid, sequence } from '#pki/der.ts'
import { attributeType, encodeName, nameText, parseName } from '#pki/name.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { workloadProfile } from './profile.ts'
import { CertificateTemplate } from './template.ts'

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const issuer = {
  name: encodeName([{ type: attributeType.organization, value: 'Test' }]),
  keyId: Uint8Array.fromHex('00112233'),
  signatureAlgorithm: sequence(oid('1.2.840.10045.4.3.2')),
} as const
const fields = {
  serialNumber: Uint8Array.of(0, 0x80, 1),
  notBeforeSeconds: 1767225600,
  notAfterSeconds: 1767229200,
  spiffeId: parseSpiffeId('spiffe://example.org/web'),
  dnsNames: [],
  publicKey: new Uint8Array(publicKey.export({ format: 'der', type: 'spki' })),
}

function issue(template: CertificateTemplate, dnsNames: readonly string[] = []): Uint8Array {
  const toBeSigned = template.toBeSigned({ ...fields, dnsNames })
  return template.certificate(toBeSigned, sign('sha256', toBeSigned, privateKey))
}

const alternativeNames = '2.5.29.17'

test('CertificateTemplate makes the names critical exactly when the subject is empty (B6)', () => {
  const critical = (der: Uint8Array): boolean | undefined =>
    parseCertificate(der).extensions.find(({ oid }) => oid === alternativeNames)?.critical
  const nameless = new CertificateTemplate(workloadProfile, { issuer, subject: [] })
  assert.equal(critical(issue(nameless)), true)
  assert.equal(critical(issue(nameless, ['a'.repeat(65)])), true)
  assert.equal(critical(issue(nameless, ['a.org'])), false)
  const subject = [{ type: attributeType.organization, value: 'SPIRE' }]
  assert.equal(
    critical(issue(new CertificateTemplate(workloadProfile, { issuer, subject }))),
    false,
  )
})

test('CertificateTemplate refers to its issuer by the identifier and name it is given', () => {
  const der = issue(new CertificateTemplate(workloadProfile, { issuer, subject: [] }))
  const certificate = parseCertificate(der)
  assert.equal(certificate.authorityKeyId?.toHex(), '00112233')
  assert.equal(nameText(parseName(certificate.issuer)), 'O=Test')
  assert.ok(new X509Certificate(der).verify(publicKey))
})

test('CertificateTemplate writes serial numbers in their shortest form and positive', () => {
  const der = issue(new CertificateTemplate(workloadProfile, { issuer, subject: [] }))
  assert.equal(parseCertificate(der).serialNumber, `${0x8001}`)
})

test('CertificateTemplate encodes each date anew when it changes', () => {
  const template = new CertificateTemplate(workloadProfile, { issuer, subject: [] })
  for (const later of [0, 1, 0, 3600]) {
    const dated = { ...fields, notAfterSeconds: fields.notAfterSeconds + later }
    const toBeSigned = template.toBeSigned(dated)
    const certificate = parseCertificate(template.certificate(toBeSigned, new Uint8Array(8)))
    assert.equal(certificate.notBeforeSeconds, fields.notBeforeSeconds)
    assert.equal(certificate.notAfterSeconds, fields.notAfterSeconds + later)
  }
})

test('CertificateTemplate puts a CommonName outside PrintableString in UTF-8', () => {
  const subject = [{ type: attributeType.organization, value: 'SPIRE' }]
  const template = new CertificateTemplate(workloadProfile, { issuer, subject })
  const certificate = parseCertificate(issue(template, ['*.a_b.org']))
  assert.equal(certificate.subjectText, 'O=SPIRE, CN=*.a_b.org')
})
