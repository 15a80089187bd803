import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSelector, type Selector } from '#spiffe/selector.ts'
import { SubsetIndex, SupersetIndex } from './selector-index.ts'

const set = (...texts: string[]): ReadonlySet<Selector> => new Set(texts.map(parseSelector))
const item = (...texts: string[]) => ({ selectors: set(...texts) })

test('SubsetIndex.subsetsOf() finds items all of whose selectors are given', () => {
  const index = new SubsetIndex<ReturnType<typeof item>>()
  const one = item('unix:uid:1')
  const both = item('unix:uid:1', 'unix:gid:1')
  const other = item('unix:uid:1', 'unix:gid:2')
  for (const each of [one, both, other]) index.add(each)
  assert.deepEqual(new Set(index.subsetsOf(set('unix:gid:1', 'unix:uid:1'))), new Set([one, both]))
  assert.deepEqual(index.subsetsOf(set('unix:gid:2')), [])
})

test('SubsetIndex.delete() takes an item out', () => {
  const index = new SubsetIndex<ReturnType<typeof item>>()
  const one = item('unix:uid:1')
  index.add(one)
  index.delete(one)
  index.delete(one)
  assert.deepEqual(index.subsetsOf(one.selectors), [])
})

test('SubsetIndex never finds an item without selectors', () => {
  const index = new SubsetIndex<ReturnType<typeof item>>()
  index.add(item())
  assert.deepEqual(index.subsetsOf(set('unix:uid:1')), [])
})

test('SupersetIndex.supersetsOf() finds items that have every given selector', () => {
  const index = new SupersetIndex<ReturnType<typeof item>>()
  const small = item('unix:uid:1')
  const large = item('unix:uid:1', 'unix:gid:1')
  index.add(small)
  index.add(large)
  assert.deepEqual(index.supersetsOf([...set('unix:uid:1')]), [small, large])
  assert.deepEqual(index.supersetsOf([...set('unix:uid:1', 'unix:gid:1')]), [large])
  assert.deepEqual(index.supersetsOf([...set('unix:gid:9')]), [])
  assert.deepEqual(index.supersetsOf([]), [])
  index.delete(large)
  assert.deepEqual(index.supersetsOf([...set('unix:uid:1')]), [small])
})
