import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { Audit, type Decision, maxRefusals } from './audit.ts'
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
