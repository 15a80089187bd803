import assert from 'node:assert/strict'
import { test } from 'node:test'
import { policy } from '../api/policy.ts'
import { callSets, calls, parseCalls } from './calls.ts'

test('calls classifies every method that administrators may call, and no other', () => {
  const administered = [...policy]
    .filter(([, classes]) => classes.some((one) => one === 'local' || one === 'admin'))
    .map(([method]) => method)
  assert.deepEqual([...calls.keys()].sort(), administered.sort())
})

test('calls has each set filled, and nothing that reads by name changes anything', () => {
  for (const set of callSets) assert.ok(parseCalls([set]).size > 0, set)
  for (const [method, { reads, set }] of calls) {
    if (set === 'administrator') continue
    const name = method.slice(method.lastIndexOf('/') + 1)
    assert.equal(reads, /^(Get|List|Count|Check|Watch)/.test(name), method)
  }
})

test('parseCalls() knows sets, methods and whole services, with and without package', () => {
  const one = '/spire.api.server.entry.v1.Entry/GetEntry'
  for (const name of ['Entry/GetEntry', one, one.slice(1)]) {
    assert.deepEqual([...parseCalls([name])], [one])
  }
  assert.deepEqual([...parseCalls(['Entry/*'])], [...parseCalls(['entries'])])
  assert.deepEqual(
    [...parseCalls(['spire.api.server.entry.v1.Entry/*'])],
    [...parseCalls(['entries'])],
  )
  const read = parseCalls(['read'])
  assert.ok(read.has(one))
  assert.ok(!read.has('/spire.api.server.entry.v1.Entry/BatchCreateEntry'))
  assert.ok(!read.has('/spire.api.server.svid.v1.SVID/MintJWTSVID'))
  assert.equal(
    parseCalls(['read', 'entries']).size,
    new Set([...read, ...parseCalls(['entries'])]).size,
  )
})

test('parseCalls() names what it does not know', () => {
  for (const [names, message] of [
    [[], /names no call/],
    [['nods'], /"nods", which is no call; did you mean nodes\?/],
    [['Entry/ListEntrys'], /did you mean Entry\/ListEntries\?/],
    [['Entry/'], /no call/],
    [['*'], /no call; there are read, entries/],
    [['*/*'], /no call/],
    [['Agent/AttestAgent'], /no call/],
    [['everybody'], /no call/],
    [['read', '__proto__'], /no call/],
  ] as const) {
    assert.throws(() => parseCalls(names), { name: 'SyntaxError', message })
  }
})
