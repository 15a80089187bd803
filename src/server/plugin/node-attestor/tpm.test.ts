import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { identityOf } from '#tpm/verify/endorsement-key.ts'
import { maker } from '../../../../test/support/endorsement-maker.ts'
import {
  forgeAnswer,
  forgedEndorsementKey,
  forgePayload,
} from '../../../../test/support/forged-tpm.ts'
import { MemoryTpmInventory, serverExchange } from '../../../../test/support/tpm-exchange.ts'
import { createTpmNodeAttestor, type TpmNodeAttestorOptions } from './tpm.ts'

// What is refused, and why, is in test/swtpm/forgeries.ts.

const clock = new FakeClock()
const options: TpmNodeAttestorOptions = {
  trustDomain: parseTrustDomain('example.org'),
  endorsementAuthorities: [maker.rootCertificate],
  allow: 'endorsement_ca',
  inventory: new MemoryTpmInventory(),
  clock,
  random: new SystemRandom(),
  log: silentLog,
}

test('createTpmNodeAttestor() refuses to admit TPMs by their maker when no maker is installed', () => {
  assert.throws(
    () => createTpmNodeAttestor({ ...options, endorsementAuthorities: [] }),
    /no endorsement authority is installed/,
  )
})

test('createTpmNodeAttestor() refuses authorities it cannot read, and registers no TPM has', () => {
  const broken = { ...options, endorsementAuthorities: [new Uint8Array(3)] }
  assert.throws(() => createTpmNodeAttestor(broken), SyntaxError)
  assert.throws(() => createTpmNodeAttestor({ ...options, pcrs: [24] }), RangeError)
})

test('an attestation ends when the agent goes away, and its timer with it', async () => {
  const gone = new AbortController()
  const reason = new Error('the agent has gone away')
  const never = new Promise<Uint8Array>(() => {})
  const exchange = serverExchange(forgePayload({}), () => {
    queueMicrotask(() => gone.abort(reason))
    return never
  })
  const running = createTpmNodeAttestor(options).attest({ ...exchange, signal: gone.signal })
  await assert.rejects(running, reason)
  assert.equal(clock.sleeping, 0)
})

test('an attestation ends after 60 seconds when the agent never answers', async () => {
  const exchange = serverExchange(forgePayload({}), async () => {
    await clock.advance(Temporal.Duration.from({ seconds: 60 }))
    return await new Promise<Uint8Array>(() => {})
  })
  await assert.rejects(createTpmNodeAttestor(options).attest(exchange), {
    reason: 'attestation-expired',
    code: 'permission-denied',
  })
})

test('an attested node is confirmed until an operator bans its TPM', async () => {
  const inventory = new MemoryTpmInventory()
  const exchange = serverExchange(forgePayload({}), async (asked) => forgeAnswer({}, asked))
  const at = new FakeClock(Temporal.Instant.from('2026-06-01T00:00:00Z'))
  const attestor = createTpmNodeAttestor({ ...options, clock: at, inventory })
  const node = await attestor.attest(exchange)
  await node.confirm?.()
  inventory.set(identityOf(forgedEndorsementKey.area).hash, { state: 'banned' })
  await assert.rejects(async () => node.confirm?.(), { reason: 'endorsement-key-banned' })
})
