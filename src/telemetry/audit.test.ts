import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { Audit, type Decision, maxRefusals, refusalBounds } from './audit.ts'
import { openLog } from './log.ts'

const refused = (requestId: string): Decision => ({
  action: '/spire.api.server.agent.v1.Agent/AttestAgent',
  result: 'refused',
  requestId,
  address: '127.0.0.1:4000',
  caller: '',
  subject: 'ab12',
  attestationType: 'tpm',
  reason: 'quote-nonce-mismatch',
  message: 'x'.repeat(5000),
})

test('Audit.record() writes every decision, marked as audit, whatever the log level is', () => {
  const lines: string[] = []
  const log = openLog({
    level: 'error',
    format: 'json',
    clock: new FakeClock(),
    sink: { write: (line) => lines.push(line) },
  })
  const audit = new Audit({ log: log.unfiltered, clock: new FakeClock() })
  audit.record({ ...refused('1'), result: 'allowed', details: { csr: 'ab', result: 'forged' } })
  const written = JSON.parse(lines[0] ?? '')
  assert.equal(written.audit, true)
  assert.equal(written.result, 'allowed')
  assert.equal(written.csr, 'ab')
  assert.equal(written.requestId, '1')
})

test('Audit.record() writes why something was refused, in bounds, beside the message of the line', () => {
  const lines: string[] = []
  const log = openLog({
    level: 'info',
    format: 'json',
    clock: new FakeClock(),
    sink: { write: (line) => lines.push(line) },
  })
  new Audit({ log, clock: new FakeClock() }).record(refused('1'))
  const written = JSON.parse(lines[0] ?? '')
  assert.equal(written.message, '/spire.api.server.agent.v1.Agent/AttestAgent refused')
  assert.equal(written.why, 'x'.repeat(1024))
  assert.equal(lines[0]?.match(/"message":/g)?.length, 1)
})

test('Audit.refusals() has the last refused attestations, newest first, in bounds', () => {
  const audit = new Audit({ log: silentLog, clock: new FakeClock() })
  for (let i = 0; i < maxRefusals + 5; i++) audit.record(refused(String(i)))
  const all = audit.refusals()
  assert.equal(all.length, maxRefusals)
  assert.equal(all[0]?.requestId, String(maxRefusals + 4))
  assert.equal(all.at(-1)?.requestId, '5')
  assert.equal(all[0]?.message.length, 1024)
  assert.equal(all[0]?.atSeconds, 1_767_225_600)
  assert.deepEqual(
    audit.refusals(2).map(({ requestId }) => requestId),
    ['260', '259'],
  )
})

test('Audit.refusals() has neither what was allowed, nor what failed, nor other calls', () => {
  const audit = new Audit({ log: silentLog, clock: new FakeClock() })
  audit.record({ ...refused('1'), result: 'allowed' })
  audit.record({ ...refused('2'), result: 'failed' })
  const { attestationType: _, ...call } = refused('3')
  audit.record(call)
  assert.deepEqual(audit.refusals(), [])
})

test('Audit.record() bounds the records of who is refused in a loop, counts the rest, and leaves out nothing allowed', async () => {
  const lines: Record<string, unknown>[] = []
  const clock = new FakeClock()
  const sink = { write: (line: string) => lines.push(JSON.parse(line)) }
  const log = openLog({ level: 'info', format: 'json', clock, sink })
  const leftOut: number[] = []
  const audit = new Audit({ log, clock, onLeftOut: (records) => leftOut.push(records) })
  for (let i = 0; i < refusalBounds.perSource + 40; i++) {
    audit.record({ ...refused(`${i}`), caller: `uid=7 gid=7 pid=${i}` })
    audit.record({ ...refused(`${i}`), result: 'allowed', caller: 'uid=7 gid=7 pid=7' })
  }
  audit.record({ ...refused('other'), caller: 'spiffe://example.org/a' })
  const count = (result: string) => lines.filter((line) => line['result'] === result).length
  assert.equal(count('refused'), refusalBounds.perSource + 1)
  assert.equal(count('allowed'), refusalBounds.perSource + 40)
  await clock.advance(Temporal.Duration.from({ seconds: 10 }))
  const { action, lines: more, sources } = lines.at(-1) ?? {}
  assert.deepEqual(
    [action, more, sources, leftOut],
    ['refusals-not-recorded', 40, { 'uid=7 gid=7': 40 }, [40]],
  )
  audit.close()
})
