import assert from 'node:assert/strict'
import { test } from 'node:test'
import { keyUsageBit, parseCertificate } from '#pki/certificate.ts'
import { derNull } from '#pki/der.ts'
import { attributeType, type NameAttribute } from '#pki/name.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import {
  type CertificateOptions,
  extension,
  type Issued,
  issue,
  nowSeconds,
} from '../../test/support/certificates.ts'
import { lintCaCertificate } from './lints.ts'

const year = 366 * 24 * 3600
const trustDomain = parseTrustDomain('example.org')
const named = (value: string): NameAttribute[] => [{ type: attributeType.commonName, value }]

const sound: CertificateOptions = {
  subject: named('CA'),
  serial: 0x5f1ac0d3e8a97b264f105bdc38e97a6bn,
  uris: ['spiffe://example.org'],
  ca: true,
  keyUsage: keyUsageBit.keyCertSign | keyUsageBit.cRLSign,
  notAfterSeconds: nowSeconds + 5 * year,
}
const newRoot = (options: CertificateOptions = {}): Issued =>
  issue(undefined, {
    ...sound,
    subject: named('root'),
    notAfterSeconds: nowSeconds + 20 * year,
    ...options,
  })

interface Case {
  readonly options?: CertificateOptions
  readonly issuer?: Issued | 'none'
}

function broken({ options = {}, issuer = newRoot() }: Case): string[] {
  const above = issuer === 'none' ? undefined : issuer
  const { certificate } = issue(above, { ...sound, ...options })
  return lintCaCertificate(parseCertificate(certificate), {
    issuer: above && parseCertificate(above.certificate),
    trustDomain,
  })
    .filter(({ problem }) => problem !== undefined)
    .map(({ rule }) => rule)
}

test('lintCaCertificate() finds nothing wrong with a root, an intermediate, and path lengths that fit', () => {
  assert.deepEqual(broken({ issuer: 'none' }), [])
  assert.deepEqual(broken({}), [])
  assert.deepEqual(broken({ options: { pathLength: 1 }, issuer: newRoot({ pathLength: 2 }) }), [])
})

const cases: readonly (readonly [RegExp, string, () => Case])[] = [
  [/serial number/, 'a short serial number', () => ({ options: { serial: 2n ** 100n - 5n } })],
  [
    /serial number/,
    'one that repeats itself',
    () => ({ options: { serial: BigInt(`0x${'5f'.repeat(16)}`) } }),
  ],
  [/subject/, 'no subject', () => ({ options: { subject: [] } })],
  [/subject/, 'its issuer’s name', () => ({ options: { subject: named('root') } })],
  [
    /lasts no longer/,
    'more than 30 years',
    () => ({ issuer: 'none', options: { notAfterSeconds: nowSeconds + 31 * year } }),
  ],
  [
    /lasts no longer/,
    'an end after its issuer’s',
    () => ({ options: { notAfterSeconds: nowSeconds + 21 * year } }),
  ],
  [
    /lasts no longer/,
    'a start before its issuer’s',
    () => ({ options: { notBeforeSeconds: nowSeconds - year } }),
  ],
  [
    /lasts no longer/,
    'an end before its start',
    () => ({ options: { notAfterSeconds: nowSeconds - year } }),
  ],
  [/basic constraints/, 'no CA', () => ({ options: { ca: false } })],
  [/basic constraints/, 'no basic constraints', () => ({ options: { ca: undefined } })],
  [/path lengths/, 'no room below', () => ({ options: { pathLength: 0 } })],
  [/path lengths/, 'no room below its issuer', () => ({ issuer: newRoot({ pathLength: 1 }) })],
  [
    /path lengths/,
    'as much room as its issuer',
    () => ({ options: { pathLength: 2 }, issuer: newRoot({ pathLength: 2 }) }),
  ],
  [/key usage is critical/, 'no key usage', () => ({ options: { keyUsage: undefined } })],
  [
    /key usage is critical/,
    'another key usage',
    () => ({ options: { keyUsage: keyUsageBit.keyCertSign | keyUsageBit.digitalSignature } }),
  ],
  [
    /extended key usage/,
    'an extended key usage',
    () => ({ options: { usages: ['1.3.6.1.5.5.7.3.1'] } }),
  ],
  [/SPIFFE ID/, 'another trust domain', () => ({ options: { uris: ['spiffe://example.com'] } })],
  [/SPIFFE ID/, 'a path', () => ({ options: { uris: ['spiffe://example.org/ca'] } })],
  [/SPIFFE ID/, 'another name', () => ({ options: { dnsNames: ['example.org'] } })],
  [/SPIFFE ID/, 'no name', () => ({ options: { uris: [] } })],
  [
    /key identifiers/,
    'another authority key identifier',
    () => ({ options: { authorityKeyId: new Uint8Array(20) } }),
  ],
  [/key identifiers/, 'no authority key identifier', () => ({ options: { authorityKeyId: null } })],
  [
    /other extensions/,
    'another extension',
    () => ({ options: { extensions: [extension('1.2.3.4', false, derNull())] } }),
  ],
  [/issuer is a CA/, 'an issuer that is no CA', () => ({ issuer: newRoot({ ca: false }) })],
  [
    /issuer is a CA/,
    'an issuer that may not sign certificates',
    () => ({ issuer: newRoot({ keyUsage: keyUsageBit.cRLSign }) }),
  ],
]
for (const [rule, what, make] of cases) {
  test(`lintCaCertificate() objects to ${what}`, () => {
    const found = broken(make())
    assert.ok(
      found.some((one) => rule.test(one)),
      found.join(', ') || 'it found nothing',
    )
  })
}
