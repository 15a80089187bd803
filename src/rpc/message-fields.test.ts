import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BatchNewX509SVIDRequest } from './gen/spire/api/server/svid/v1/svid.ts'
import { Entry } from './gen/spire/api/types/entry.ts'
import { countFields } from './message-fields.ts'

const request = BatchNewX509SVIDRequest.encode({
  params: Array.from({ length: 300 }, (_, i) => ({ entryId: `${i}`, csr: new Uint8Array(i) })),
}).finish()

test('countFields() counts the items of a batch, whatever is in them', () => {
  assert.equal(countFields(request), 300)
  assert.equal(countFields(new Uint8Array()), 0)
  const empty = new Uint8Array(2 ** 16).map((_, i) => (i % 2 === 0 ? 0x0a : 0))
  assert.equal(countFields(empty), 2 ** 15)
  assert.equal(BatchNewX509SVIDRequest.decode(empty).params.length, 2 ** 15)
})

test('countFields() counts fields of every wire type', () => {
  const entry = Entry.encode(
    Entry.create({
      id: 'x',
      x509SvidTtl: 300,
      admin: true,
      expiresAt: 2 ** 40,
      dnsNames: ['a', 'b'],
    }),
  ).finish()
  assert.equal(countFields(entry), 6)
  const fixed = Uint8Array.of(0x09, ...new Array(8).fill(255), 0x0d, ...new Array(4).fill(255))
  assert.equal(countFields(fixed), 2)
})

test('countFields() never counts more than is there, at any truncation or with a length past the end', () => {
  for (let end = 0; end < request.length; end++) {
    assert.ok(countFields(request.subarray(0, end)) <= 300)
  }
  assert.equal(countFields(Uint8Array.of(0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x0a, 0)), 1)
  assert.equal(countFields(new Uint8Array(100).fill(0xff)), 0)
  assert.equal(countFields(Uint8Array.of(0x0b, 0x0a, 0)), 0)
})
