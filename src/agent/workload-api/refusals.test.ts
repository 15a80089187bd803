import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import type { CallContext } from '#rpc/call.ts'
import { parseSelector } from '#spiffe/selector.ts'
import { Refusals } from './refusals.ts'

function context(requestId: string): CallContext {
  return {
    peer: { kind: 'unix', pid: 7, uid: 8, gid: 9, pidfd: undefined, startTime: 1n },
    method: '/SpiffeWorkloadAPI/FetchX509SVID',
    signal: new AbortController().signal,
    metadata: () => [],
    requestId,
  }
}

test('Refusals remembers who was refused, when and why', () => {
  const refusals = new Refusals(new FakeClock(Temporal.Instant.from('2026-01-01T00:00:01.9Z')))
  const selectors = [parseSelector('unix:uid:8')]
  refusals.record(context('a'), { selectors, reason: 'no-identity-issued' })
  assert.deepEqual(refusals.find('a'), {
    atSeconds: 1_767_225_601,
    requestId: 'a',
    method: '/SpiffeWorkloadAPI/FetchX509SVID',
    pid: 7,
    uid: 8,
    gid: 9,
    selectors,
    reason: 'no-identity-issued',
  })
  assert.equal(refusals.find('b'), undefined)
})

test('Refusals.list() gives the last 256, newest first, or fewer', () => {
  const refusals = new Refusals(new FakeClock())
  for (let i = 0; i < 300; i += 1) refusals.record(context(`r${i}`), { selectors: [], reason: '' })
  const all = refusals.list().map(({ requestId }) => requestId)
  assert.equal(all.length, 256)
  assert.equal(all[0], 'r299')
  assert.equal(all.at(-1), 'r44')
  assert.deepEqual(
    refusals.list(2).map(({ requestId }) => requestId),
    ['r299', 'r298'],
  )
})
