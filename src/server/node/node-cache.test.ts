import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryDatastore } from '../../../test/support/memory-datastore.ts'
import { agentId, newNode } from '../../../test/support/records.ts'
import { NodeCache } from './node-cache.ts'

const a = agentId('a')

test('NodeCache has the nodes of before, and follows', async () => {
  await using store = memoryDatastore()
  await store.putNode(newNode('a'))
  using nodes = await NodeCache.load(store)
  assert.deepEqual(nodes.node(a), newNode('a'))
  assert.equal(nodes.node(agentId('b')), undefined)
  await store.putNode(newNode('b', { serialNumber: '2' }))
  assert.equal(nodes.node(agentId('b'))?.serialNumber, '2')
  assert.equal(nodes.size, 2)
  await store.deleteNode(a)
  assert.equal(nodes.node(a), undefined)
})

test('NodeCache.onChange() tells of one node only, until disposed', async () => {
  await using store = memoryDatastore()
  using nodes = await NodeCache.load(store)
  const serials: (string | undefined)[] = []
  {
    using _watching = nodes.onChange(a, (node) => serials.push(node?.serialNumber))
    await store.putNode(newNode('b'))
    await store.putNode(newNode('a', { serialNumber: '1' }))
    await store.putNode(newNode('a', { serialNumber: '2' }))
    await store.deleteNode(a)
  }
  await store.putNode(newNode('a'))
  assert.deepEqual(serials, ['1', '2', undefined])
})

test('NodeCache.onBanned() tells when a node is banned or deleted, not when it is renewed', async () => {
  await using store = memoryDatastore()
  await store.putNode(newNode('a'))
  using nodes = await NodeCache.load(store)
  let ends = 0
  using _watching = nodes.onBanned(a, () => ends++)
  await store.updateNode(a, (node) => ({ ...node, newSerialNumber: '2' }))
  assert.equal(ends, 0)
  await store.updateNode(a, (node) => ({ ...node, serialNumber: '', newSerialNumber: '' }))
  assert.equal(ends, 1)
  await store.deleteNode(a)
  assert.equal(ends, 2)
})
