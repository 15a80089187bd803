import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log.ts'
import { Update } from '#rpc/gen/assay/server/v1/feed.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { reportMessage, updateFrom } from './messages.ts'

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

test('reportMessage() names authorities that have an id, and their last expiry in seconds', () => {
  const use = { svids: 2, expiresAtMs: 1_999 }
  assert.deepEqual(
    reportMessage({
      bundleSequenceNumber: 7n,
      authorities: [
        { authorityId: '', ...use },
        { authorityId: 'aa', ...use },
      ],
      againAtMs: 5,
    }),
    { bundleSequenceNumber: 7n, authorities: [{ authorityId: 'aa', svids: 2, expiresAt: 1 }] },
  )
})
