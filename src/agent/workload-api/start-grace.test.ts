import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { AgentStatus } from '../status.ts'
import { StartGrace } from './start-grace.ts'

const limit = Temporal.Duration.from({ seconds: 10 })

function newGrace({ limited = true } = {}) {
  const clock = new FakeClock()
  const status = new AgentStatus()
  const identities = { isSynchronized: false }
  const grace = new StartGrace({ identities, status, clock, limit: limited ? limit : undefined })
  let ended = false
  const stop = new AbortController()
  const wait = grace.wait(stop.signal).then(() => {
    ended = true
  })
  return { clock, status, identities, grace, wait, stop, hasEnded: () => ended }
}

describe('StartGrace', () => {
  it('holds calls until the first word of the server', async () => {
    const { clock, status, identities, wait, hasEnded } = newGrace()
    status.enter('attesting', 'the server is away')
    await clock.advance(limit.subtract({ seconds: 1 }))
    assert.equal(hasEnded(), false)
    identities.isSynchronized = true
    status.enter('ready')
    await wait
    assert.equal(clock.sleeping, 0)
  })

  it('holds them no longer than its limit', async () => {
    const { clock, wait, hasEnded } = newGrace()
    await clock.advance(limit.subtract({ milliseconds: 1 }))
    assert.equal(hasEnded(), false)
    await clock.advance(Temporal.Duration.from({ milliseconds: 1 }))
    await wait
  })

  it('holds them no longer than there is hope', async () => {
    const { status, wait } = newGrace()
    status.enter('stopped')
    await wait
  })

  it('lets a call that was given up end with its reason', async () => {
    const { wait, stop, grace } = newGrace()
    stop.abort(new Error('given up'))
    grace[Symbol.dispose]()
    await assert.rejects(wait, /given up/)
  })

  it('holds nothing without a limit, and keeps no timer when disposed of', async () => {
    await newGrace({ limited: false }).wait
    const { clock, grace, wait } = newGrace()
    grace[Symbol.dispose]()
    await wait
    assert.equal(clock.sleeping, 0)
  })
})
