import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import { parseEntryDocument } from './entry-document.ts'
import { entryRecord } from './wire.ts'

const id = { trustDomain: 'example.org', path: '/web' }
const parent = { trustDomain: 'example.org', path: '/node' }
const least = {
  spiffe_id: 'spiffe://example.org/web',
  parent_id: 'spiffe://example.org/node',
  selectors: ['unix:uid:1000'],
}

const parse = (document: unknown): Entry[] =>
  parseEntryDocument(typeof document === 'string' ? document : JSON.stringify(document), 'f.json')

const refuses = (document: unknown, why: string): void =>
  assert.throws(
    () => parse(document),
    (error) => {
      assert.ok(error instanceof AssayError)
      assert.equal(error.code, 'invalid-argument')
      assert.equal(error.message, `cannot read entries from f.json: ${why}`)
      return true
    },
  )

test("parseEntryDocument() reads what SPIRE's command line prints of entries it has", () => {
  const printed = {
    id: 'web',
    spiffe_id: { trust_domain: 'example.org', path: '/web' },
    parent_id: { trust_domain: 'example.org', path: '/node' },
    selectors: [{ type: 'unix', value: 'uid:1000' }],
    x509_svid_ttl: 60,
    jwt_svid_ttl: 0,
    federates_with: [],
    dns_names: [],
    hint: '',
    expires_at: '1769860800',
    created_at: '1769860700',
    revision_number: '3',
    admin: false,
    downstream: false,
    store_svid: false,
  }
  const [entry] = parse({ entries: [printed], next_page_token: '' })
  assert.deepEqual(entry?.spiffeId, id)
  assert.deepEqual(entry.parentId, parent)
  assert.equal(entry.expiresAt, 1769860800)
  assert.equal(entry.x509SvidTtl, 60)
  refuses(
    { entries: [{ ...printed, spiffe_id: { trust_domain: 'example.org' } }] },
    'entry 1: spiffe_id: it must be text',
  )
})

test("parseEntryDocument() reads SPIRE's form", () => {
  const [entry] = parse({
    entries: [
      {
        ...least,
        entry_id: 'web',
        selectors: [{ type: 'unix', value: 'uid:1000' }],
        x509_svid_ttl: 60,
        jwt_svid_ttl: 30,
        federates_with: ['other.org'],
        dns_names: ['web'],
        hint: 'h',
        entry_expiry: 1769860800,
        admin: true,
        downstream: true,
        store_svid: true,
      },
    ],
  })
  assert.deepEqual(
    entry,
    Entry.create({
      id: 'web',
      spiffeId: id,
      parentId: parent,
      selectors: [{ type: 'unix', value: 'uid:1000' }],
      x509SvidTtl: 60,
      jwtSvidTtl: 30,
      federatesWith: ['other.org'],
      dnsNames: ['web'],
      hint: 'h',
      expiresAt: 1769860800,
      admin: true,
      downstream: true,
      storeSvid: true,
      additionalAttributes: { disableX509SvidPrefetch: false, jwtSvidIncludeJti: false },
    }),
  )
})

test("parseEntryDocument() reads what 'entry list --json' prints", () => {
  const entry = Entry.create({
    id: 'web',
    spiffeId: id,
    parentId: parent,
    selectors: [{ type: 'unix', value: 'uid:1000' }],
    x509SvidTtl: 60,
    expiresAt: 1769860800,
    revisionNumber: 3,
    createdAt: 1769860000,
    additionalAttributes: { disableX509SvidPrefetch: true, jwtSvidIncludeJti: false },
  })
  const [read] = parse([entryRecord(entry)])
  assert.deepEqual(read, { ...entry, revisionNumber: 0, createdAt: 0 })
})

test('parseEntryDocument() refuses what holds no entries', () => {
  refuses('{', 'it is not JSON')
  for (const wrong of [{}, 1, null, 'null', { entries: {} }])
    refuses(wrong, 'it is neither a list nor has a list "entries"')
  assert.deepEqual(parse({ entries: [] }), [])
})

test('parseEntryDocument() says which entry lacks what', () => {
  const { parent_id: _, ...orphan } = least
  refuses([least, orphan], 'entry 2: it has no parent_id')
  refuses([[]], 'entry 1: it is not an object')
})

test('parseEntryDocument() refuses a key that it would otherwise pass over', () => {
  refuses(
    [{ ...least, dns_name: ['x'] }],
    'entry 1: dns_name: there is no such key; is it dns_names?',
  )
  refuses([{ ...least, quux: 1 }], 'entry 1: quux: there is no such key')
  refuses([{ ...least, constructor: 1 }], 'entry 1: constructor: there is no such key')
})

test('parseEntryDocument() refuses a value of the wrong kind, by its key', () => {
  refuses([{ ...least, hint: 1 }], 'entry 1: hint: it must be text')
  refuses([{ ...least, admin: 'true' }], 'entry 1: admin: it must be true or false')
  refuses(
    [{ ...least, jwt_svid_include_jti: 1 }],
    'entry 1: jwt_svid_include_jti: it must be true or false',
  )
  refuses([{ ...least, dns_names: 'a' }], 'entry 1: dns_names: it must be a list')
  for (const wrong of [-1, 1.5, '60', null])
    refuses(
      [{ ...least, x509_svid_ttl: wrong }],
      'entry 1: x509_svid_ttl: it must be a whole number',
    )
  refuses(
    [{ ...least, expires_at: 'soon' }],
    "entry 1: expires_at: 'soon' is no time; write it like 2026-01-31T12:00:00Z",
  )
  refuses(
    [{ ...least, selectors: [1] }],
    'entry 1: selectors: a selector is text, type:value, or {"type": …, "value": …}',
  )
  assert.throws(() => parse([{ ...least, spiffe_id: 'http://x' }]), /entry 1: spiffe_id: .*http/)
})
