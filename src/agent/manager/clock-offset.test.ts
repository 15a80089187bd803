import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clockProblem } from './clock-offset.ts'

const minute = 60_000

test('clockProblem() says nothing of up to a minute, either way', () => {
  for (const offset of [0, minute, -minute, 3_000]) assert.equal(clockProblem(offset), undefined)
})

test('clockProblem() says how far and which way the clock of the node is off', () => {
  assert.equal(clockProblem(362 * minute), "the clock of this node is 6h02m behind the server's")
  assert.equal(clockProblem(-5 * minute), "the clock of this node is 5m ahead of the server's")
  assert.equal(
    clockProblem(-400 * 24 * 60 * minute),
    "the clock of this node is 400 days ahead of the server's",
  )
})
