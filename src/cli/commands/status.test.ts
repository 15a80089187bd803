import assert from 'node:assert/strict'
import { test } from 'node:test'
import { untilFirstBreakSeconds } from './status.ts'

test('untilFirstBreakSeconds() is what the worst SVID has left when it is about to be renewed', () => {
  assert.equal(untilFirstBreakSeconds({ shortestX509SvidTtl: 3600 }), 1620)
  assert.equal(untilFirstBreakSeconds({ shortestX509SvidTtl: 0 }), 0)
})
