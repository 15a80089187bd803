import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { JoinTokenAttestor } from './join-token.ts'
import type { AttestationExchange } from './node-attestor.ts'

const clock = new FakeClock()
const nowSeconds = clock.now().epochMilliseconds / 1000

function attestorWith(...tokens: { value: string; expiresAtSeconds: number }[]): JoinTokenAttestor {
  const held = new Map(tokens.map((token) => [token.value, token]))
  return new JoinTokenAttestor({
    trustDomain: parseTrustDomain('example.org'),
    clock,
    tokens: {
      async takeJoinToken(value) {
        const token = held.get(value)
        held.delete(value)
        return token
      },
    },
  })
}

const showing = (payload: Uint8Array): AttestationExchange => ({
  payload,
  csr: new Uint8Array(),
  csrPublicKey: new Uint8Array(),
  peerAddress: '192.0.2.1',
  tlsExporter: () => undefined,
  challenge: () => Promise.reject(new Error('a join token is not challenged')),
  signal: new AbortController().signal,
})

test('JoinTokenAttestor.attest() names the agent after the token, which works once', async () => {
  const attestor = attestorWith({ value: 'abc-1', expiresAtSeconds: nowSeconds + 60 })
  const node = await attestor.attest(showing(utf8Bytes('abc-1')))
  assert.deepEqual(node, {
    agentId: 'spiffe://example.org/spire/agent/join_token/abc-1',
    selectors: [],
    canReattest: false,
  })
  await assert.rejects(attestor.attest(showing(utf8Bytes('abc-1'))), {
    code: 'invalid-argument',
    reason: 'join-token-unknown',
    message: 'failed to attest: join token does not exist or has already been used',
  })
})

test('JoinTokenAttestor.attest() refuses an expired token and uses it up', async () => {
  const attestor = attestorWith({ value: 'old', expiresAtSeconds: nowSeconds })
  await assert.rejects(attestor.attest(showing(utf8Bytes('old'))), {
    code: 'invalid-argument',
    message: 'join token expired',
  })
  await assert.rejects(attestor.attest(showing(utf8Bytes('old'))), { reason: 'join-token-unknown' })
})

for (const [what, payload] of [
  ['an empty payload', new Uint8Array()],
  ['bytes that are not UTF-8', Uint8Array.of(0xff, 0xfe)],
  ['a path separator', utf8Bytes('a/b')],
  ['a parent directory', utf8Bytes('..')],
  ['an overlong payload', new Uint8Array(1025).fill(0x61)],
] as const) {
  test(`JoinTokenAttestor.attest() refuses ${what} without looking it up`, async () => {
    await assert.rejects(attestorWith().attest(showing(payload)), {
      reason: 'join-token-malformed',
    })
  })
}
