import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refusal } from './tpm-refusals.ts'

test('refusal() says invalid-argument for what cannot be read, and permission-denied for what does not prove', () => {
  assert.equal(refusal('attestation-malformed', '').code, 'invalid-argument')
  const { code, reason } = refusal('clock-fell', '')
  assert.deepEqual({ code, reason }, { code: 'permission-denied', reason: 'clock-fell' })
})
