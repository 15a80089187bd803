import assert from 'node:assert/strict'
import { test } from 'node:test'
import { agentEntry } from './fake-entry.ts'
import { withUniqueHints } from './hints.ts'

test('withUniqueHints() keeps the oldest entry of each hint, then the lower id', () => {
  const entries = [
    agentEntry('a', { hint: 'internal', createdAtSeconds: 2 }),
    agentEntry('b', { hint: 'internal', createdAtSeconds: 1 }),
    agentEntry('c', { hint: 'internal', createdAtSeconds: 1 }),
    agentEntry('d', { hint: 'external', createdAtSeconds: 9 }),
  ]
  assert.deepEqual(
    withUniqueHints(entries).map((entry) => entry.id),
    ['b', 'd'],
  )
})

test('withUniqueHints() keeps every entry without a hint', () => {
  const entries = [agentEntry('a'), agentEntry('b')]
  assert.deepEqual(withUniqueHints(entries), entries)
})
