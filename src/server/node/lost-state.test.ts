import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import type { Log } from '#base/log.ts'
import { silentLog } from '#base/log.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { LostState } from './lost-state.ts'

const one = parseSpiffeId('spiffe://example.org/spire/agent/tpm/1')
const two = parseSpiffeId('spiffe://example.org/spire/agent/tpm/2')

test('LostState says once that an agent holds a newer bundle than there is', () => {
  const said: unknown[] = []
  const log: Log = { ...silentLog, error: (fields) => said.push(fields['reason']) }
  const state = new LostState({ heldSequence: () => 7n, clock: new FakeClock(), log })
  state.compare(one, 0n)
  state.compare(one, 7n)
  const before = state.evidence
  assert.equal(before, undefined)
  state.compare(one, 8n)
  state.compare(two, 9n)
  assert.deepEqual([state.evidence?.agentId, state.evidence?.agentSequence], [one, 8n])
  assert.deepEqual(said, ['state-went-back'])
})
