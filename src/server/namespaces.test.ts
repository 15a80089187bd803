import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { mostNamespaces, Namespaces } from './namespaces.ts'

const id = (path: string) => parseSpiffeId(`spiffe://example.org${path}`)

test('Namespaces.count() tells IDs apart by their first path segment', () => {
  const counts = new Namespaces().count([
    id('/web/a'),
    id('/web/b/c'),
    id('/web'),
    id('/db'),
    id(''),
  ])
  assert.deepEqual(
    [...counts],
    [
      ['web', 3],
      ['db', 1],
      ['', 1],
    ],
  )
})

test('Namespaces has no more labels than it may, whatever names are chosen, and keeps those it has', () => {
  const namespaces = new Namespaces()
  const many = Array.from({ length: 1000 }, (_, i) => id(`/n${i}/a`))
  const counts = namespaces.count([id('/large/a'), ...many, id('/large/b')])
  assert.equal(counts.size, mostNamespaces + 1)
  assert.equal(counts.get('large'), 2)
  assert.equal(counts.get('other'), 1000 - (mostNamespaces - 1))
  assert.equal(namespaces.labelOf(id('/late/a')), 'other')
  assert.equal(namespaces.labelOf(id('/large/c')), 'large')
  const later = namespaces.count([id('/late/a'), id('/large/a')])
  assert.deepEqual(Object.fromEntries(later), { other: 1, large: 1 })
})
