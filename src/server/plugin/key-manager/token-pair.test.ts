import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import type { KeyManager, Sealer } from './key-manager.ts'
import { newMemoryKeyManager } from './memory.ts'
import { TokenPair } from './token-pair.ts'

/** A token of which only the sealing counts; `failure` is what comes of unsealing. */
function token(failure: AssayError | undefined): KeyManager {
  const sealer: Sealer = {
    where: 'a token',
    seal: async (_name, secret) => secret,
    async unseal(_name, sealed) {
      if (failure !== undefined) throw failure
      return sealed
    },
  }
  return Object.assign(newMemoryKeyManager(), { sealer })
}

const away = new AssayError('unavailable', 'the token is away')
const foreign = new AssayError('failed-precondition', 'another key sealed it')

const unseal = (first: AssayError | undefined, second: AssayError | undefined) => {
  const { sealer } = new TokenPair(token(first), token(second), {
    promoteAfter: Temporal.Duration.from({ minutes: 5 }),
    monotonicMs: () => 0,
  })
  assert.ok(sealer)
  return sealer.unseal('x', Uint8Array.of(1))
}

test('a pair of tokens unseals with whichever has sealed', async () => {
  assert.deepEqual(await unseal(foreign, undefined), Uint8Array.of(1))
  assert.deepEqual(await unseal(away, undefined), Uint8Array.of(1))
  await assert.rejects(unseal(foreign, foreign), foreign)
})

test('a pair of tokens waits for the one that is away before it says that neither has sealed', async () => {
  await assert.rejects(unseal(foreign, away), away)
  await assert.rejects(unseal(away, foreign), away)
})
