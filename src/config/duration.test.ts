import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatDuration, parseDuration } from './duration.ts'

test('parseDuration() reads hours, minutes and seconds in order and nothing else', () => {
  const valid = { '90s': 90, '15m': 900, '24h': 86_400, '1h30m': 5400, '1h1m1s': 3661, '0s': 0 }
  for (const [written, seconds] of Object.entries(valid))
    assert.equal(parseDuration(written), seconds)
  for (const written of [
    '',
    '90',
    's',
    '1d',
    '30m1h',
    '1h1h',
    '-1s',
    '1.5h',
    ' 1s',
    '1s ',
    '9999999999s',
  ]) {
    assert.throws(() => parseDuration(written), SyntaxError, written)
  }
})

test('formatDuration() writes what parseDuration() reads', () => {
  for (const seconds of [0, 1, 59, 60, 61, 3600, 3661, 5400, 86_400]) {
    assert.equal(parseDuration(formatDuration(seconds)), seconds)
  }
  assert.equal(formatDuration(5400), '1h30m')
})
