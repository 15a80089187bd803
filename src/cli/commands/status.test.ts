import assert from 'node:assert/strict'
import { test } from 'node:test'
import { firstBreak } from './status.ts'

const known = { expiresAt: 1900, agentId: 'spiffe://example.org/spire/agent/a', silentNodes: 0 }

test('firstBreak() is what nodes say, and the worst moment of the lifetimes for those that say nothing', () => {
  const at = (overview: Partial<typeof known>, shortestX509SvidTtl = 3600) =>
    firstBreak({ firstBreak: { ...known, ...overview }, shortestX509SvidTtl }, 1000)
  assert.deepEqual(at({}), { inSeconds: 900, agentId: known.agentId })
  assert.deepEqual(at({ silentNodes: 1 }), { inSeconds: 900, agentId: known.agentId })
  assert.deepEqual(at({ silentNodes: 1, expiresAt: 9000 }), { inSeconds: 1620, agentId: '' })
  assert.deepEqual(at({ expiresAt: 9000 }), { inSeconds: 8000, agentId: known.agentId })
  assert.equal(at({ expiresAt: 0 }).inSeconds, undefined)
  assert.equal(at({ expiresAt: 0, silentNodes: 1 }, 0).inSeconds, undefined)
  // A server of before there was such a thing.
  assert.deepEqual(firstBreak({ firstBreak: undefined, shortestX509SvidTtl: 3600 }, 1000), {
    inSeconds: 1620,
    agentId: '',
  })
})
