import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AuthorityJournal, emptyJournal, encodeJournal, parseJournal } from './journal.ts'

const issued = {
  authorityId: 'aa',
  content: Uint8Array.of(1, 2, 3),
  issuedAtSeconds: 10,
  expiresAtSeconds: 20,
}
const record = {
  slot: 'A',
  keyId: 'x509-ca/A/20260101T000000Z',
  keyType: 'ec-p256',
  startedAtSeconds: 9,
  signedUntilSeconds: 12,
} as const
const journal: AuthorityJournal = {
  newestIssueSeconds: 15,
  x509: [
    { ...record, mintedUntilSeconds: 13, state: 'old', issued },
    { ...record, keyId: 'k2', state: 'active', issued },
    { ...record, keyId: 'k3', slot: 'B', state: 'prepared', issued },
  ],
  jwt: [{ ...record, keyType: 'rsa-3072', state: 'preparing', issued: undefined }],
  rotations: { jwt: { predecessorId: 'bb', startedAtSeconds: 14, retire: true } },
}

test('parseJournal() reads what encodeJournal() writes', () => {
  assert.deepEqual(parseJournal(encodeJournal(journal)), journal)
  assert.deepEqual(parseJournal(encodeJournal(emptyJournal)), emptyJournal)
  const upstream = { intermediates: [Uint8Array.of(4)], root: Uint8Array.of(5) }
  const below: AuthorityJournal = {
    ...journal,
    x509: [{ ...record, state: 'active', issued: { ...issued, upstream } }],
  }
  assert.deepEqual(parseJournal(encodeJournal(below)), below)
  const half: AuthorityJournal = { ...journal, jwt: [{ ...record, state: 'preparing', issued }] }
  assert.deepEqual(parseJournal(encodeJournal(half)), half)
})

test('parseJournal() refuses every truncation', () => {
  const document = encodeJournal(journal)
  for (let length = 0; length < document.length; length++) {
    assert.throws(() => parseJournal(document.slice(0, length)), SyntaxError, `${length}`)
  }
})

type Edit = (document: {
  version: unknown
  newestIssueSeconds: unknown
  x509: Record<string, unknown>[]
  jwt: unknown
}) => void

const refusals: readonly (readonly [string, Edit, RegExp])[] = [
  ['a newer version', (d) => Object.assign(d, { version: 3 }), /version 3 is newer than 2/],
  ['no version', (d) => Object.assign(d, { version: 0 }), /version 0/],
  ['an unknown member', (d) => Object.assign(d, { more: 1 }), /: more is unknown/],
  [
    'an unknown member of a record',
    (d) => set(d.x509, 0, { more: 1 }),
    /x509\[0\]\.more is unknown/,
  ],
  ['no list', (d) => Object.assign(d, { jwt: {} }), /jwt is not a list/],
  ['two active', (d) => set(d.x509, 0, { state: 'active' }), /x509 has two active/],
  ['two under way', (d) => set(d.x509, 0, { state: 'preparing' }), /x509 has two .* under way/],
  ['a key twice', (d) => set(d.x509, 0, { keyId: 'k2' }), /x509 names a key twice/],
  ['an empty key id', (d) => set(d.x509, 1, { keyId: '' }), /x509\[1\]\.keyId/],
  ['an unknown slot', (d) => set(d.x509, 1, { slot: 'C' }), /x509\[1\]\.slot is none of A, B/],
  ['an unknown state', (d) => set(d.x509, 1, { state: 'x' }), /x509\[1\]\.state/],
  ['an unknown key type', (d) => set(d.x509, 1, { keyType: 'dsa' }), /x509\[1\]\.keyType/],
  ['an active one not issued', (d) => set(d.x509, 1, { issued: undefined }), /no issued/],
  ['a negative time', (d) => set(d.x509, 1, { startedAtSeconds: -1 }), /startedAtSeconds/],
  ['a time that is no number', (d) => Object.assign(d, { newestIssueSeconds: '1' }), /newestIssue/],
  ['content that is not base64', (d) => issue(d.x509, { content: '*' }), /content is not base64/],
  ['empty content', (d) => issue(d.x509, { content: '' }), /content is not base64/],
  ['an end before the start', (d) => issue(d.x509, { expiresAtSeconds: 10 }), /expires before/],
  ['an upstream without root', (d) => issue(d.x509, { upstream: { intermediates: [] } }), /root/],
  [
    'intermediates that are no list',
    (d) => issue(d.x509, { upstream: { intermediates: 'x', root: 'AA==' } }),
    /upstream\.intermediates is not a list/,
  ],
  [
    'an intermediate that is not base64',
    (d) => issue(d.x509, { upstream: { intermediates: ['*'], root: 'AA==' } }),
    /intermediates\[0\] is not base64/,
  ],
  [
    'an unknown member of an upstream',
    (d) => issue(d.x509, { upstream: { intermediates: [], root: 'AA==', more: 1 } }),
    /upstream\.more is unknown/,
  ],
  ['an issued that is a list', (d) => set(d.x509, 0, { issued: [] }), /issued is not an object/],
]
for (const [what, edit, why] of refusals) {
  test(`parseJournal() refuses ${what}`, () => {
    const document = JSON.parse(encodeJournal(journal))
    edit(document)
    assert.throws(() => parseJournal(JSON.stringify(document)), {
      name: 'SyntaxError',
      message: why,
    })
  })
}

test('parseJournal() refuses a document beyond its bound', () => {
  assert.throws(() => parseJournal(' '.repeat(2 ** 24 + 1)), /longer than 16777216/)
})

function set(records: Record<string, unknown>[], at: number, change: object): void {
  Object.assign(records[at] ?? {}, change)
}

function issue(records: Record<string, unknown>[], change: object): void {
  Object.assign(records[0]?.['issued'] ?? {}, change)
}
