import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { Metrics } from '#telemetry/metrics.ts'
import { memoryDatastore } from '../../test/support/memory-datastore.ts'
import { meteredDatastore } from './metered-datastore.ts'

let nowMs = 0
const monotonicMs = () => nowMs

test('meteredDatastore() counts what goes to the datastore, and not what is answered from memory', async () => {
  const metrics = new Metrics()
  await using datastore = meteredDatastore(memoryDatastore(), { metrics, monotonicMs })
  await datastore.countEntries({})
  await datastore.countEntries({})
  datastore.revision()
  const lines = (await metrics.exposition())
    .split('\n')
    .filter((line) => line.startsWith('assay_datastore_operations_total{'))
  assert.deepEqual(lines, ['assay_datastore_operations_total{operation="countEntries"} 2'])
})

test('meteredDatastore() passes arguments, answers and failures through', async () => {
  await using datastore = meteredDatastore(memoryDatastore(), {
    metrics: new Metrics(),
    monotonicMs,
  })
  await datastore.createJoinToken({ value: 'once', expiresAtSeconds: 1 })
  assert.equal((await datastore.takeJoinToken('once'))?.value, 'once')
  await assert.rejects(datastore.deleteEntry('absent'), { code: 'not-found' })
})

test('meteredDatastore() times what is used, and counts what the datastore failed at, not what cannot be', async () => {
  const metrics = new Metrics()
  const plain = memoryDatastore()
  await using datastore = meteredDatastore(plain, { metrics, monotonicMs })
  const { promise, reject } = Promise.withResolvers<never>()
  plain.countNodes = () => promise
  const counted = datastore.countNodes({})
  nowMs += 700
  reject(new AssayError('unavailable', 'the disk is full', { reason: 'datastore-full' }))
  await assert.rejects(counted, { reason: 'datastore-full' })
  await assert.rejects(datastore.deleteEntry('absent'), { code: 'not-found' })
  const text = await metrics.exposition()
  assert.match(
    text,
    /^assay_datastore_operation_duration_seconds_sum\{operation="countNodes"\} 0.7$/m,
  )
  assert.deepEqual(text.match(/^assay_datastore_failures_total.*$/gm), [
    'assay_datastore_failures_total{reason="datastore-full"} 1',
  ])
})
