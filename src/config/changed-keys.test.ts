import assert from 'node:assert/strict'
import { test } from 'node:test'
import { changedKeys } from './changed-keys.ts'

test('changedKeys() looks into lists, mappings and addresses', () => {
  const before = { a: 1, b: [{ c: 1 }], d: new URL('https://a.org/'), e: undefined, f: [1] }
  assert.deepEqual(changedKeys(before, structuredCloneOf(before)), [])
  const after = { a: 2, b: [{ c: 2 }], d: new URL('https://b.org/'), e: undefined, f: [1] }
  assert.deepEqual(changedKeys(before, after), ['a', 'b', 'd'])
})

const structuredCloneOf = <T extends { readonly d: URL; readonly b: readonly object[] }>(
  of: T,
): T => ({
  ...of,
  b: of.b.map((one) => ({ ...one })),
  d: new URL(of.d),
})
