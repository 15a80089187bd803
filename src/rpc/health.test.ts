import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { serve } from '../../test/support/rpc.ts'
import { HealthDefinition } from './gen/grpc/health/v1/health.ts'
import { healthHandlers } from './health.ts'

describe('healthHandlers()', () => {
  const states = new Map<string, boolean>([
    ['', true],
    ['a', false],
  ])
  const clock = new FakeClock()
  const handlers = healthHandlers({ check: (name) => states.get(name), services: ['a'], clock })

  it('answers Check and List from the function', async () => {
    await using served = await serve({ health: handlers })
    const health = served.connection.client(HealthDefinition)
    assert.deepEqual(await health.check({}), { status: 1 })
    assert.deepEqual(await health.check({ service: 'a' }), { status: 2 })
    await assert.rejects(health.check({ service: 'b' }), { code: 'not-found' })
    assert.deepEqual(
      (await health.list({})).statuses,
      new Map([
        ['', { status: 1 }],
        ['a', { status: 2 }],
      ]),
    )
  })

  it('tells a Watch the status now and at each change', async () => {
    await using served = await serve({ health: handlers })
    const health = served.connection.client(HealthDefinition)
    const watch = health.watch({ service: 'late' })[Symbol.asyncIterator]()
    assert.deepEqual((await watch.next()).value, { status: 3 })
    for (const [serving, status] of [
      [true, 1],
      [false, 2],
    ] as const) {
      const next = watch.next()
      while (clock.sleeping === 0) await new Promise((resolve) => process.nextTick(resolve))
      await clock.advance(Temporal.Duration.from({ seconds: 1 }))
      states.set('late', serving)
      await clock.advance(Temporal.Duration.from({ seconds: 1 }))
      assert.deepEqual((await next).value, { status })
    }
    await watch.return?.()
  })
})
