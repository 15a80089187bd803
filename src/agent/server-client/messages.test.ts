import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { generateMlDsaKeyPair } from '#pq-crypto/ml-dsa.ts'
import { Update } from '#rpc/gen/assay/server/v1/feed.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { newAuthority } from '../../../test/support/certificates.ts'
import { reportMessage, updateFrom, withPq } from './messages.ts'

const trustDomain = parseTrustDomain('example.org')

test('updateFrom() bounds the spread of replacements to an hour', () => {
  const spreadOf = (replacementSpreadSeconds: number): number =>
    updateFrom(Update.create({ replacementSpreadSeconds }), trustDomain, silentLog)
      .replacementSpreadSeconds
  assert.deepEqual([0, 1, 3600, 3601, 2 ** 31 - 1, -1].map(spreadOf), [0, 1, 3600, 3600, 3600, 0])
})

test('updateFrom() refuses a complete update without bundle, and the bundle of another trust domain', () => {
  const other = { trustDomain: 'other.example', x509Authorities: [], jwtAuthorities: [] }
  for (const message of [{ complete: true }, { bundle: other }]) {
    assert.throws(() => updateFrom(Update.create(message), trustDomain, silentLog), {
      code: 'internal',
      message: 'the server sent no bundle of trust domain example.org',
    })
  }
})

test('withPq() puts post-quantum keys beside the authorities they are of, and passes over what cannot be read', async () => {
  const authority = newAuthority('example.org')
  const other = newAuthority('example.org')
  const { publicKey } = await generateMlDsaKeyPair('ml-dsa-44')
  const bundle: Bundle = {
    trustDomain,
    x509Authorities: [authority, other].map(({ certificate }) => ({ certificate, tainted: false })),
    jwtAuthorities: [
      { keyId: 'a', publicKey: Uint8Array.of(1), expiresAtSeconds: 0, tainted: false },
    ],
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
  }
  const idOf = (der: Uint8Array): string => parseCertificate(der).subjectKeyId?.toHex() ?? ''
  // It has the key of an authority that is classical, so that nothing may come of it.
  const x509 = [{ authorityId: idOf(authority.certificate), certificate: authority.certificate }]
  const jwt = [
    { authorityId: 'a', keyId: 'pq', publicKey },
    { authorityId: 'unknown', keyId: 'pq2', publicKey },
  ]
  const whole = withPq(bundle, { x509, jwt }, silentLog)
  assert.deepEqual(
    whole.x509Authorities.map(({ pq }) => pq),
    [undefined, undefined],
  )
  assert.deepEqual(
    whole.jwtAuthorities.map(({ pq }) => pq),
    [{ keyId: 'pq', publicKey }],
  )
  const broken = [
    { x509: [], jwt: [{ authorityId: 'a', keyId: '', publicKey }] },
    { x509: [], jwt: [{ authorityId: 'a', keyId: 'pq', publicKey: publicKey.subarray(1) }] },
    { x509: [{ authorityId: idOf(other.certificate), certificate: Uint8Array.of(1) }], jwt: [] },
  ]
  for (const pq of broken) assert.deepEqual(withPq(bundle, pq, silentLog), bundle)
  assert.equal(withPq(bundle, undefined, silentLog), bundle)
})

test('reportMessage() names authorities that have an id, and their last expiry in seconds', () => {
  const use = { svids: 2, expiresAtMs: 1_999 }
  assert.deepEqual(
    reportMessage({
      bundleSequenceNumber: 7n,
      authorities: [
        { authorityId: '', ...use },
        { authorityId: 'aa', ...use },
      ],
      firstExpiryMs: 2999,
      againAtMs: 5,
    }),
    {
      bundleSequenceNumber: 7n,
      authorities: [{ authorityId: 'aa', svids: 2, expiresAt: 1 }],
      firstExpiresAt: 2,
    },
  )
})
