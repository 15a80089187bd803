import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Topics } from './topics.ts'

const next = async (view: AsyncGenerator<unknown>): Promise<unknown> => (await view.next()).value

test('Topics tell a viewer everything, then what changes', async () => {
  const topics = new Topics()
  const stop = new AbortController()
  topics.set('keys', { data: 1 })
  const a = { id: 'a' }
  topics.setNodes(new Map([['a', a]]))
  const view = topics.view(stop.signal)
  assert.deepEqual(await next(view), [
    { topic: 'keys', data: { data: 1 } },
    { topic: 'nodes', data: { complete: true, nodes: [a], removed: [] } },
  ])
  const b = { id: 'b' }
  topics.setNodes(
    new Map([
      ['a', a],
      ['b', b],
    ]),
  )
  assert.deepEqual(await next(view), [
    { topic: 'nodes', data: { complete: false, nodes: [b], removed: [] } },
  ])
  topics.setNodes(new Map([['b', b]]))
  assert.deepEqual(await next(view), [
    { topic: 'nodes', data: { complete: false, nodes: [], removed: ['a'] } },
  ])
  stop.abort(new Error('the test is over'))
  assert.equal((await view.next()).done, true)
  assert.equal(topics.isWatched, false)
})

test('Topics leave out what a slow viewer has missed, and what is as before', async () => {
  const topics = new Topics()
  const stop = new AbortController()
  const view = topics.view(stop.signal)
  topics.set('keys', { data: 1 })
  await next(view)
  for (const data of [2, 3, 4, 4]) topics.set('keys', { data })
  assert.deepEqual(await next(view), [{ topic: 'keys', data: { data: 4 } }])
  topics.set('keys', { data: 4 })
  topics.set('refusals', { data: 0 })
  assert.deepEqual(await next(view), [{ topic: 'refusals', data: { data: 0 } }])
  stop.abort(new Error('the test is over'))
  await view.next()
})

test('Topics.watched() waits for somebody who looks', async () => {
  const topics = new Topics()
  const stop = new AbortController()
  let isWatched = false
  const waiting = topics.watched(stop.signal).then(() => {
    isWatched = true
  })
  await Promise.resolve()
  assert.equal(isWatched, false)
  topics.set('keys', {})
  const view = topics.view(stop.signal)
  await view.next()
  await waiting
  assert.equal(isWatched, true)
  stop.abort(new Error('the test is over'))
  await view.next()
  await assert.rejects(topics.watched(stop.signal), /the test is over/)
})
