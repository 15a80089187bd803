import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError, type ErrorCode } from '#base/errors.ts'
import { UsageError } from './command.ts'
import { exitStatuses, exitStatusOf } from './exit-status.ts'

const expected: Readonly<Record<ErrorCode, number>> = {
  'invalid-argument': 2,
  'not-found': 3,
  'permission-denied': 4,
  unauthenticated: 4,
  unavailable: 5,
  'already-exists': 1,
  'failed-precondition': 1,
  'resource-exhausted': 1,
  unimplemented: 1,
  internal: 1,
}

for (const [code, status] of Object.entries(expected)) {
  test(`exitStatusOf() is ${status} for ${code}`, () => {
    assert.equal(exitStatusOf(new AssayError(code as ErrorCode, 'x')), status)
  })
}

test('exitStatusOf() is 2 for a wrong call and a malformed value, 1 for a bug', () => {
  assert.equal(exitStatusOf(new UsageError('x')), 2)
  assert.equal(exitStatusOf(new SyntaxError('x')), 2)
  assert.equal(exitStatusOf(new TypeError('x')), 1)
  assert.equal(exitStatusOf('x'), 1)
})

test('exitStatuses lists 0 to 6 once each, and every status that exitStatusOf() gives', () => {
  const listed = exitStatuses.map(([status]) => status)
  assert.deepEqual(listed, [0, 1, 2, 3, 4, 5, 6])
  for (const status of Object.values(expected)) assert.ok(listed.some((one) => one === status))
})
