// A datastore that fails shows within seconds to whoever watches: over HTTP, and on a stream of grpc.health.v1.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { HealthDefinition } from '#rpc/gen/grpc/health/v1/health.ts'
import { eventually, Taken } from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'

const live = await LiveServer.start()
after(() => live[Symbol.asyncDispose]())

const statusOfReady = async (): Promise<number> =>
  (await fetch(`http://127.0.0.1:${live.server.healthPort}/ready`)).status

test('Health.Watch and /ready tell within two seconds that the datastore fails, and that it works again', async () => {
  const health = live.local.client(HealthDefinition)
  using watch = new Taken((signal) => health.watch({}, { signal }))
  assert.equal((await watch.next()).status, 1)
  const read = live.datastore.bundle.bind(live.datastore)
  const start = performance.now()
  live.datastore.bundle = () => Promise.reject(new Error('disk I/O error'))
  assert.equal((await watch.next()).status, 2)
  assert.equal(await statusOfReady(), 503)
  // One look to read anew, one to tell; a machine that is busy may take its time.
  assert.ok(performance.now() - start < 5000)
  live.datastore.bundle = read
  assert.equal((await watch.next()).status, 1)
  assert.equal(
    await eventually(async () => (await statusOfReady()) === 200 || undefined, 'ready'),
    true,
  )
})
