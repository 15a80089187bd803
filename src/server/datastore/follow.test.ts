import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryDatastore } from '../../../test/support/memory-datastore.ts'
import { newEntry } from '../../../test/support/records.ts'
import { follow } from './follow.ts'

test('follow() applies what changes while it loads, after the load and in order', async () => {
  await using store = memoryDatastore()
  await store.createEntry(newEntry('e1'))
  const seen: string[] = []
  using _following = await follow(store, {
    load: async () => {
      await store.createEntry(newEntry('e2'))
      await store.deleteEntry('e1')
      seen.push('loaded')
    },
    apply: ({ key, value }) => void seen.push(value === undefined ? `-${key}` : `+${key}`),
  })
  await store.createEntry(newEntry('e3'))
  assert.deepEqual(seen, ['loaded', '+e2', '-e1', '+e3'])
})

test('follow() has stopped watching when the load fails, and when it is disposed', async () => {
  await using store = memoryDatastore()
  let applied = 0
  const cache = {
    load: () => Promise.reject(new Error('no')),
    apply: () => void applied++,
  }
  await assert.rejects(follow(store, cache), /no/)
  {
    using _following = await follow(store, { ...cache, load: async () => {} })
  }
  await store.createEntry(newEntry('e1'))
  assert.equal(applied, 0)
})
