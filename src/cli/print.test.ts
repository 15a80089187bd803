import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  blocks,
  count,
  durationText,
  fields,
  table,
  timeLeftText,
  timeText,
  timeValue,
  visible,
} from './print.ts'

const noon = 1769860800

test('durationText() says the two largest units', () => {
  const texts = [0, 59, 60, 3599, 3600, 3661, 86400, 90061, 31536000, -5, 1.9].map(durationText)
  assert.deepEqual(texts, [
    '0 s',
    '59 s',
    '1 m',
    '59 m 59 s',
    '1 h',
    '1 h 1 m',
    '1 d',
    '1 d 1 h',
    '365 d',
    '0 s',
    '1 s',
  ])
})

test('timeText() and timeValue() write RFC 3339 in UTC, and leave zero out', () => {
  assert.equal(timeText(noon), '2026-01-31T12:00:00Z')
  assert.equal(timeText(0), '')
  assert.equal(timeValue(noon), '2026-01-31T12:00:00Z')
  assert.equal(JSON.stringify({ at: timeValue(0) }), '{}')
})

test('timeLeftText() says how far away a time is, on either side', () => {
  assert.equal(timeLeftText(noon, noon - 3660), '2026-01-31T12:00:00Z (in 1 h 1 m)')
  assert.equal(timeLeftText(noon, noon), '2026-01-31T12:00:00Z (in 0 s)')
  assert.equal(timeLeftText(noon, noon + 5), '2026-01-31T12:00:00Z (5 s ago)')
  assert.equal(timeLeftText(0, noon), 'never')
})

test('table() aligns columns and leaves no space at the ends of lines', () => {
  assert.deepEqual(
    table(
      ['name', 'x', 'last'],
      [
        ['a', 'long', 'z'],
        ['abcdef', 'b', ''],
      ],
    ),
    ['NAME    X     LAST', 'a       long  z', 'abcdef  b'],
  )
})

test('fields() aligns values and leaves out those that are empty', () => {
  assert.deepEqual(
    fields([
      ['Name', 'a'],
      ['Hint', ''],
      ['SPIFFE ID', 'b'],
    ]),
    ['Name       a', 'SPIFFE ID  b'],
  )
  assert.deepEqual(fields([]), [])
})

test('blocks() puts an empty line between groups that have lines', () => {
  assert.deepEqual(blocks([['a', 'b'], [], ['c']]), ['a', 'b', '', 'c'])
  assert.deepEqual(blocks([]), [])
})

test('count() uses the plural but for one', () => {
  assert.deepEqual(
    [0, 1, 2].map((number) => count(number, 'entry', 'entries')),
    ['0 entries', '1 entry', '2 entries'],
  )
  assert.equal(count(2, 'agent'), '2 agents')
})

test('visible() disarms what drives a terminal or begins a line, and keeps text and tabs', () => {
  assert.equal(visible('\u001b[2J\u0007\r\u0000'), '\\u001b[2J\\u0007\\u000d\\u0000')
  assert.equal(visible('\u009b31m\u007f'), '\\u009b31m\\u007f')
  assert.equal(visible('a\u202eb'), 'a\\u202eb')
  assert.equal(visible('1.0\nagent\u2028x\u2029'), '1.0\\u000aagent\\u2028x\\u2029')
  assert.equal(visible('tab\tline zürich ✓ 日本'), 'tab\tline zürich ✓ 日本')
})

test('visible() leaves JSON what it means', () => {
  const value = { text: 'a\u009b\u202e' }
  assert.deepEqual(JSON.parse(visible(JSON.stringify(value))), value)
})
