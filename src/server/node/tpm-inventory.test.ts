import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { memoryDatastore } from '../../../test/support/memory-datastore.ts'
import type { InventoryRecord, TpmClock } from '../datastore/datastore.ts'
import { DatastoreTpmInventory, maxPending, maxPendingFromAddress } from './tpm-inventory.ts'

const hashOf = (n: number): string => n.toString(16).padStart(64, '0')
const tpmClock: TpmClock = { resetCount: 1, restartCount: 0, clock: 5n, firmwareVersion: 7n }

const said: InventoryRecord = {
  endorsementKeyHash: hashOf(0),
  state: 'allowed',
  nodeName: 'node-1',
  lastAddress: '',
  firstSeenSeconds: 1,
  lastSeenSeconds: 0,
  description: '',
  clock: undefined,
}

function inventory() {
  const datastore = memoryDatastore()
  const clock = new FakeClock()
  return { datastore, clock, inventory: new DatastoreTpmInventory(datastore, clock) }
}

test('DatastoreTpmInventory.knock() notes a TPM as pending, and later where it was seen', async () => {
  const { inventory: tpms } = inventory()
  await tpms.knock(hashOf(1), '192.0.2.1', 'IFX SLB9672')
  await tpms.knock(hashOf(1), '192.0.2.2', 'IFX SLB9672')
  const record = await tpms.record(hashOf(1))
  assert.equal(record?.state, 'pending')
  assert.equal(record?.lastAddress, '192.0.2.2')
  assert.equal(record?.description, 'IFX SLB9672')
})

test('DatastoreTpmInventory.knock() does not change what an operator has said', async () => {
  const { datastore, inventory: tpms } = inventory()
  await tpms.knock(hashOf(1), 'a', 'd')
  await datastore.updateInventory(hashOf(1), (record) => ({ ...record, state: 'denied' }))
  await tpms.knock(hashOf(1), 'b', 'd')
  assert.equal((await tpms.record(hashOf(1)))?.state, 'denied')
})

test('DatastoreTpmInventory never overwrites what an operator says at the same moment', async () => {
  const { datastore, inventory: tpms } = inventory()
  const say = (hash: string, state: 'allowed' | 'banned') =>
    datastore.writeInventory(hash, () => ({ ...said, endorsementKeyHash: hash, state }))
  await Promise.all([tpms.knock(hashOf(1), 'a', 'd'), say(hashOf(1), 'allowed')])
  assert.equal((await tpms.record(hashOf(1)))?.state, 'allowed')
  const states: unknown[] = []
  const banning = say(hashOf(2), 'banned')
  const joining = tpms.recordClock(hashOf(2), 'a', (present) => {
    states.push(present?.state)
    return tpmClock
  })
  await Promise.all([banning, joining])
  assert.deepEqual(states, ['banned'])
  assert.equal((await tpms.record(hashOf(2)))?.state, 'banned')
})

const addressOf = (n: number): string => `192.0.2.${n % 100}`

test('DatastoreTpmInventory.knock() forgets who was seen longest ago when too many are pending', async () => {
  const { datastore, inventory: tpms, clock } = inventory()
  await datastore.putInventory([{ ...said, endorsementKeyHash: hashOf(9999), state: 'denied' }])
  for (let n = 0; n < maxPending; n++) await tpms.knock(hashOf(n), addressOf(n), 'd')
  await clock.advance(Temporal.Duration.from({ seconds: 1 }))
  for (let n = 0; n < maxPending; n++) if (n !== 7) await tpms.knock(hashOf(n), addressOf(n), 'd')
  await tpms.knock(hashOf(maxPending), '198.51.100.1', 'd')
  const { items } = await datastore.listInventory('pending', { pageSize: 0, pageToken: '' })
  assert.equal(items.length, maxPending)
  assert.equal(await tpms.record(hashOf(7)), undefined)
  assert.equal((await tpms.record(hashOf(maxPending)))?.state, 'pending')
  assert.equal((await tpms.record(hashOf(9999)))?.state, 'denied')
})

test('DatastoreTpmInventory.knock() lets one address push out nobody but itself', async () => {
  const { datastore, inventory: tpms, clock } = inventory()
  await tpms.knock(hashOf(5000), '198.51.100.1', 'genuine')
  await clock.advance(Temporal.Duration.from({ seconds: 1 }))
  for (let n = 0; n < 2 * maxPendingFromAddress; n++)
    await tpms.knock(hashOf(n), `2001:db8:0:1::${n}`, 'd')
  const { items } = await datastore.listInventory('pending', { pageSize: 0, pageToken: '' })
  assert.equal(items.length, maxPendingFromAddress + 1)
  assert.equal((await tpms.record(hashOf(5000)))?.state, 'pending')
})

test('DatastoreTpmInventory.recordClock() advances the clock, or changes nothing', async () => {
  const { inventory: tpms } = inventory()
  await tpms.recordClock(hashOf(1), 'a', (present) => {
    assert.equal(present, undefined)
    return tpmClock
  })
  assert.equal((await tpms.record(hashOf(1)))?.state, 'allowed')
  await assert.rejects(
    tpms.recordClock(hashOf(1), 'b', (present) => {
      assert.deepEqual(present?.clock, tpmClock)
      throw new Error('it has gone back')
    }),
    /gone back/,
  )
  const record = await tpms.record(hashOf(1))
  assert.deepEqual([record?.lastAddress, record?.clock], ['a', tpmClock])
})
