import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodePem } from '#pki/pem.ts'
import { newAuthority } from '../../test/support/certificates.ts'
import { type Bundle, bundleFromPem, bundleToPem, equalBundles } from './bundle.ts'
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

const jwt = { keyId: 'a', publicKey: Uint8Array.of(1), expiresAtSeconds: 5, tainted: false }
const bundle: Bundle = {
  ...bundleFromPem(td, pem),
  jwtAuthorities: [jwt, { ...jwt, keyId: 'b' }],
  refreshHintSeconds: 300,
  sequenceNumber: 7n,
}

test('equalBundles() does not look at order and sequence number', () => {
  assert.equal(equalBundles(bundle, structuredClone(bundle)), true)
  const reordered = {
    ...bundle,
    x509Authorities: bundle.x509Authorities.toReversed(),
    jwtAuthorities: bundle.jwtAuthorities.toReversed(),
    sequenceNumber: 8n,
  }
  assert.equal(equalBundles(bundle, reordered), true)
})

for (const [name, change] of Object.entries<Partial<Bundle>>({
  'the trust domain': { trustDomain: parseTrustDomain('other') },
  'an X.509 authority': { x509Authorities: bundle.x509Authorities.slice(1) },
  'an X.509 taint': {
    x509Authorities: bundle.x509Authorities.map((a, i) => ({ ...a, tainted: i === 0 })),
  },
  'a JWT authority': { jwtAuthorities: [jwt] },
  'a key identifier': { jwtAuthorities: [jwt, { ...jwt, keyId: 'c' }] },
  'a public key': { jwtAuthorities: [jwt, { ...jwt, keyId: 'b', publicKey: Uint8Array.of(2) }] },
  'a JWT expiry': { jwtAuthorities: [jwt, { ...jwt, keyId: 'b', expiresAtSeconds: 6 }] },
  'a JWT taint': { jwtAuthorities: [jwt, { ...jwt, keyId: 'b', tainted: true }] },
  'the refresh hint': { refreshHintSeconds: 301 },
  'one of two that repeats': { jwtAuthorities: [jwt, jwt] },
})) {
  test(`equalBundles() sees a change of ${name}`, () => {
    assert.equal(equalBundles(bundle, { ...bundle, ...change }), false)
    assert.equal(equalBundles({ ...bundle, ...change }, bundle), false)
  })
}
