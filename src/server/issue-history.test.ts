import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { IssueHistory } from './issue-history.ts'

const hour = 3600
const advance = (clock: FakeClock, seconds: number) =>
  clock.advance(Temporal.Duration.from({ seconds }))

function newHistory() {
  const clock = new FakeClock()
  const history = new IssueHistory(clock)
  const now = (): number => Math.floor(clock.now().epochMilliseconds / 1000)
  return { clock, history, now }
}

test('IssueHistory.minutes() has 60 of them, the present one last', async () => {
  const { clock, history, now } = newHistory()
  history.issued('x509', now() + hour)
  history.issued('agent', now() + hour)
  await advance(clock, 61)
  history.issued('x509', now() + hour)
  history.refused()
  const minutes = history.minutes()
  assert.equal(minutes.length, 60)
  assert.deepEqual(minutes.at(-1), {
    atSeconds: now() - 1,
    counts: { x509: 1, jwt: 0, agent: 0 },
    refused: 1,
  })
  assert.deepEqual(minutes.at(-2)?.counts, { x509: 1, jwt: 0, agent: 1 })
  assert.deepEqual(minutes[0]?.counts, { x509: 0, jwt: 0, agent: 0 })
})

test('IssueHistory.minutes() forgets what is an hour old', async () => {
  const { clock, history, now } = newHistory()
  history.issued('jwt', now() + hour)
  await advance(clock, 59 * 60)
  assert.equal(history.minutes()[0]?.counts.jwt, 1)
  await advance(clock, 60)
  assert.equal(
    history.minutes().some(({ counts }) => counts.jwt > 0),
    false,
  )
})

test('IssueHistory.expiring() counts by periods of five minutes, and what expires after a day together', () => {
  const { history, now } = newHistory()
  const at = now()
  history.issued('x509', at + 2 * hour + 10)
  history.issued('x509', at + 10)
  history.issued('jwt', at + 299)
  history.issued('agent', at + 25 * hour)
  history.issued('agent', at + 48 * hour)
  assert.deepEqual(history.expiring(), {
    periods: [
      { fromSeconds: at, untilSeconds: at + 300, counts: { x509: 1, jwt: 1, agent: 0 } },
      {
        fromSeconds: at + 2 * hour,
        untilSeconds: at + 2 * hour + 300,
        counts: { x509: 1, jwt: 0, agent: 0 },
      },
    ],
    later: { x509: 0, jwt: 0, agent: 2 },
  })
})

test('IssueHistory.expiring() leaves out what has expired', async () => {
  const { clock, history, now } = newHistory()
  history.issued('x509', now() + 10)
  await advance(clock, 300)
  assert.deepEqual(history.expiring().periods, [])
})
