import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { type LogFormat, openLog, type ProcessLog } from './log.ts'

function capture(format: LogFormat): { readonly log: ProcessLog; readonly lines: string[] } {
  const lines: string[] = []
  const sink = { write: (line: string) => lines.push(line) }
  return { lines, log: openLog({ level: 'info', format, clock: new FakeClock(), sink }) }
}

test('openLog() writes one JSON object a line, with the clock’s time', () => {
  const { log, lines } = capture('json')
  log.child({ component: 'ca' }).warn({ spiffeId: 'spiffe://a/b', serial: 12n }, 'near expiry')
  assert.equal(
    lines.join(''),
    '{"level":"warn","time":"2026-01-01T00:00:00.000Z","component":"ca","spiffeId":"spiffe://a/b","serial":12,"message":"near expiry"}\n',
  )
})

test('openLog() describes an error with its code, reason and causes, and on debug an unexpected one with its stack', () => {
  const { log, lines } = capture('json')
  log.level = 'debug'
  const cause = new TypeError('no such thing')
  log.error({ error: new AssayError('not-found', 'gone', { reason: 'gone', cause }) }, 'failed')
  const { error } = JSON.parse(lines[0] ?? '')
  assert.equal(error.code, 'not-found')
  assert.equal(error.reason, 'gone')
  assert.equal(error.stack, undefined)
  assert.equal(error.cause.message, 'no such thing')
  assert.match(error.cause.stack, /log\.test\.ts/)
})

for (const format of ['json', 'text'] as const) {
  test(`openLog() as ${format} writes no stack unless the level is debug`, () => {
    const { log, lines } = capture(format)
    const error = new Error('cannot open', { cause: new TypeError('no such thing') })
    log.error({ error }, 'failed')
    assert.match(lines[0] ?? '', /no such thing/)
    assert.doesNotMatch(lines[0] ?? '', /log\.test\.ts/)
    log.level = 'debug'
    log.error({ error }, 'failed')
    assert.match(lines[1] ?? '', /log\.test\.ts/)
  })
}

test('openLog() as text writes what an error says, its reason and its causes, none twice', () => {
  const { log, lines } = capture('text')
  const cause = new Error('no such file', { cause: new Error('disk gone') })
  const error = new AssayError('not-found', 'cannot read x: no such file', {
    reason: 'gone',
    cause,
  })
  log.error({ error, path: '/x' }, 'the agent ends')
  assert.deepEqual(lines, [
    '2026-01-01T00:00:00.000Z ERROR the agent ends error="cannot read x: no such file: disk gone" reason=gone path=/x\n',
  ])
})

test('openLog() survives an error that is its own cause', () => {
  const { log, lines } = capture('json')
  const error = new Error('loop')
  error.cause = error
  log.error({ error }, 'failed')
  assert.equal(lines.length, 1)
})

test('ProcessLog.level holds back what is below it, in children made before too', () => {
  const { log, lines } = capture('text')
  const child = log.child({ component: 'api' })
  child.debug({}, 'one')
  log.level = 'debug'
  child.debug({}, 'two')
  log.level = 'error'
  child.warn({}, 'three')
  child.error({}, 'four')
  assert.deepEqual(
    lines.map((line) => line.split(' ')[2]),
    ['two', 'four'],
  )
})

test('ProcessLog.unfiltered writes whatever the level is', () => {
  const { log, lines } = capture('text')
  const { unfiltered } = log
  log.level = 'error'
  unfiltered.child({ audit: true }).info({}, 'kept')
  assert.deepEqual(lines, ['2026-01-01T00:00:00.000Z INFO  kept audit=true\n'])
})

test('openLog() as text lets nobody forge a line, a field or a terminal command', () => {
  const { log, lines } = capture('text')
  log.info({ agent: 'x y=1\n2026 INFO  forged', ok: 'a/b:1' }, 'bad\u001b[2J\u2028name')
  assert.deepEqual(lines, [
    '2026-01-01T00:00:00.000Z INFO  bad\\u001b[2J\\u2028name agent="x y=1\\n2026 INFO  forged" ok=a/b:1\n',
  ])
})

test('openLog() with priorities begins lines as the journal reads them, and audit records alone are notices', () => {
  for (const format of ['json', 'text'] as const) {
    const lines: string[] = []
    const sink = { write: (line: string) => lines.push(line) }
    const log = openLog({ level: 'debug', format, clock: new FakeClock(), priorities: true, sink })
    log.debug({}, 'a')
    log.info({ forged: true, audit: true, text: '"audit":true,' }, '<0> "audit":true,')
    log.child({ component: 'ca' }).warn({}, 'c')
    log.error({}, 'd')
    log.unfiltered.child({ audit: true }).info({ action: 'x' }, 'e')
    assert.deepEqual(
      lines.map((line) => line.slice(0, 3)),
      ['<7>', '<6>', '<4>', '<3>', '<5>'],
    )
    assert.ok(lines.every((line) => line.endsWith('\n') && line.indexOf('\n') === line.length - 1))
  }
})
