import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Node } from '#rpc/gen/assay/server/v1/activity.ts'
import { Record as InventoryRecord, State } from '#rpc/gen/assay/server/v1/inventory.ts'
import { NodeList } from './nodes.ts'

const agentId = 'spiffe://example.org/spire/agent/tpm/aa'
const node = Node.create({ agentId, state: 'live', attestationType: 'tpm', address: '10.0.0.1:1' })
const record = (endorsementKeyHash: string, state: State, nodeName = '') =>
  InventoryRecord.create({ endorsementKeyHash, state, nodeName, lastAddress: '10.0.0.9:1' })
const shown = (list: NodeList) =>
  [...list.views().values()].map(({ id, name, state }) => [id, name, state])

test('NodeList names nodes by the inventory, and shows TPMs that have not attested', () => {
  const list = new NodeList()
  list.apply({ complete: true, nodes: [node], removed: [] })
  assert.equal(list.lacksRecords, true)
  list.setRecords([
    record('aa', State.ALLOWED, 'n001'),
    record('bb', State.ALLOWED, 'n002'),
    record('cc', State.PENDING),
    record('dd', State.DENIED),
    record('ee', State.BANNED),
  ])
  assert.equal(list.lacksRecords, false)
  assert.deepEqual(shown(list), [
    [agentId, 'n001', 'live'],
    ['bb', 'n002', 'expected'],
    ['cc', '', 'pending'],
    ['dd', '', 'denied'],
    ['ee', '', 'banned'],
  ])
})

test('NodeList keeps what has not changed as the same object', () => {
  const list = new NodeList()
  list.setRecords([record('bb', State.PENDING)])
  list.apply({ complete: true, nodes: [node], removed: [] })
  const before = list.views()
  list.updateRecords([record('bb', State.PENDING)], new Set([State.PENDING]))
  list.apply({ complete: false, nodes: [{ ...node, state: 'away' }], removed: [] })
  const after = list.views()
  assert.equal(after.get('bb'), before.get('bb'))
  assert.notEqual(after.get(agentId), before.get(agentId))
  assert.equal(after.get(agentId)?.state, 'away')
})

test('NodeList forgets nodes that are gone, and TPMs that are in another state', () => {
  const list = new NodeList()
  list.apply({ complete: true, nodes: [node], removed: [] })
  list.setRecords([record('bb', State.PENDING), record('cc', State.DENIED)])
  list.apply({ complete: false, nodes: [], removed: [agentId] })
  const watched = new Set([State.PENDING, State.DENIED])
  assert.equal(list.updateRecords([record('bb', State.DENIED)], watched), false)
  assert.equal(shown(list).length, 2, 'where cc is now, a whole reading tells')
  const moved = [record('bb', State.DENIED), record('cc', State.PENDING)]
  assert.equal(list.updateRecords(moved, watched), true)
  assert.deepEqual(shown(list), [
    ['bb', '', 'denied'],
    ['cc', '', 'pending'],
  ])
  list.setRecords([])
  assert.deepEqual(shown(list), [])
})
