import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodePem } from '#pki/pem.ts'
import { newAuthority } from '../../test/support/certificates.ts'
import { bundleFromPem, bundleToPem } from './bundle.ts'
import { parseTrustDomain } from './trust-domain.ts'

const td = parseTrustDomain('td')
const one = newAuthority('td').certificate
const two = newAuthority('td').certificate
const pem = encodePem('CERTIFICATE', one) + encodePem('CERTIFICATE', two)

test('bundleFromPem() and bundleToPem() are inverse', () => {
  const bundle = bundleFromPem(td, `# our roots\n${pem}`)
  assert.equal(bundle.trustDomain, td)
  assert.deepEqual(bundle.x509Authorities, [
    { certificate: one, tainted: false },
    { certificate: two, tainted: false },
  ])
  assert.deepEqual(bundle.jwtAuthorities, [])
  assert.equal(bundleToPem(bundle), pem)
})

test('bundleFromPem() takes a certificate that stands there twice once', () => {
  assert.equal(bundleFromPem(td, pem + pem).x509Authorities.length, 2)
})

test('bundleFromPem() refuses no certificate, other blocks alone, and one that is broken', () => {
  assert.throws(() => bundleFromPem(td, ''), /no CERTIFICATE block/)
  assert.throws(() => bundleFromPem(td, encodePem('PRIVATE KEY', one)), /no CERTIFICATE block/)
  const broken = pem + encodePem('CERTIFICATE', one.subarray(1))
  assert.throws(() => bundleFromPem(td, broken), { name: 'SyntaxError', message: /certificate 3/ })
})
