import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GetAuthorizedEntriesResponse } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { EntryMask } from '#rpc/gen/spire/api/types/entry.ts'
import { newEntry } from '../../../test/support/records.ts'
import { AuthorizedAnswers, maxRememberedBytes, minRememberedBytes } from './authorized-answers.ts'

const many = (count: number, hint = '') =>
  Array.from({ length: count }, (_, index) => newEntry(`${index}`, { hint }))
const idsOf = (bytes: Uint8Array) =>
  GetAuthorizedEntriesResponse.decode(bytes).entries.map(({ id }) => id)

test('AuthorizedAnswers puts a long list together once for each mask, and another list anew', () => {
  const answers = new AuthorizedAnswers()
  const entries = many(1000)
  const bytes = answers.encode(entries, undefined)
  assert.ok(bytes.length > minRememberedBytes)
  assert.equal(answers.encode(entries, undefined), bytes)
  assert.deepEqual(
    idsOf(bytes),
    entries.map(({ id }) => id),
  )
  const mask = EntryMask.create({ hint: true })
  const masked = GetAuthorizedEntriesResponse.decode(answers.encode(entries, mask)).entries
  assert.equal(masked[1]?.spiffeId, undefined)
  assert.deepEqual(idsOf(answers.encode(entries.slice(1), undefined)), idsOf(bytes).slice(1))
})

test('AuthorizedAnswers keeps no short list, and no more bytes than it may', () => {
  const answers = new AuthorizedAnswers()
  answers.encode(many(10), undefined)
  assert.equal(answers.size, 0)
  const large = 'x'.repeat(100_000)
  const first = many(100, large)
  const bytes = answers.encode(first, undefined)
  assert.equal(answers.size, bytes.length)
  for (let i = 0; i < 4; i++) {
    answers.encode(many(100, large), undefined)
    assert.ok(answers.size <= maxRememberedBytes)
  }
  assert.notEqual(answers.encode(first, undefined), bytes)
  answers.encode(many(400, large), undefined)
  assert.ok(answers.size <= maxRememberedBytes)
})
