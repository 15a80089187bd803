import assert from 'node:assert/strict'
import { test } from 'node:test'
import { authorityUses, type Holdings, isSameReport } from './holdings.ts'

const svid = (authorityId: string, expiresAtMs: number) => ({ authorityId, expiresAtMs })

/** `b+` is counted as `b`. */
const at = (nowMs: number) => ({ nowMs, nameOf: (id: string) => id.replace('+', '') })

test('authorityUses() counts each SVID once, by the name of its authority, and gives the last expiry', () => {
  const shared = svid('b', 20)
  assert.deepEqual(
    authorityUses(
      [shared, svid('a', 10), shared, svid('b', 30), svid('b', 25), svid('b+', 5)],
      at(0),
    ),
    [
      { authorityId: 'a', svids: 1, expiresAtMs: 10 },
      { authorityId: 'b', svids: 4, expiresAtMs: 30 },
    ],
  )
})

test('authorityUses() leaves out what has expired', () => {
  assert.deepEqual(authorityUses([svid('a', 10), svid('b', 11)], at(10)), [
    { authorityId: 'b', svids: 1, expiresAtMs: 11 },
  ])
})

test('isSameReport() looks at all that is told to the server, and nothing else', () => {
  const use = { authorityId: 'a', svids: 1, expiresAtMs: 10 }
  const report: Holdings = {
    bundleSequenceNumber: 1n,
    authorities: [use],
    firstExpiryMs: 7,
    againAtMs: undefined,
  }
  assert.ok(isSameReport(report, { ...report, authorities: [{ ...use }], againAtMs: 5 }))
  for (const other of [
    { bundleSequenceNumber: 2n },
    { firstExpiryMs: 8 },
    { firstExpiryMs: undefined },
    { authorities: [] },
    { authorities: [{ ...use, authorityId: 'b' }] },
    { authorities: [{ ...use, svids: 2 }] },
    { authorities: [{ ...use, expiresAtMs: 11 }] },
  ]) {
    assert.equal(isSameReport(report, { ...report, ...other }), false)
  }
})
