import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Metrics } from '#telemetry/metrics.ts'
import { memoryDatastore } from '../../test/support/memory-datastore.ts'
import { meteredDatastore } from './metered-datastore.ts'

test('meteredDatastore() counts what goes to the datastore, and not what is answered from memory', async () => {
  const metrics = new Metrics()
  await using datastore = meteredDatastore(memoryDatastore(), metrics)
  await datastore.countEntries({})
  await datastore.countEntries({})
  datastore.revision()
  const lines = (await metrics.exposition())
    .split('\n')
    .filter((line) => line.startsWith('assay_datastore_operations_total{'))
  assert.deepEqual(lines, ['assay_datastore_operations_total{operation="countEntries"} 2'])
})

test('meteredDatastore() passes arguments, answers and failures through', async () => {
  await using datastore = meteredDatastore(memoryDatastore(), new Metrics())
  await datastore.createJoinToken({ value: 'once', expiresAtSeconds: 1 })
  assert.equal((await datastore.takeJoinToken('once'))?.value, 'once')
  await assert.rejects(datastore.deleteEntry('absent'), { code: 'not-found' })
})
