import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { type LogFields, silentLog } from '#base/log.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { type Content, Deliveries, type Delivery, type Verifies } from './deliveries.ts'
import type { X509Svid } from './x509-svid.ts'

const never = new AbortController().signal
const seconds = (n: number): Temporal.Duration => Temporal.Duration.from({ seconds: n })

function bundle(sequenceNumber: bigint): Bundle {
  return {
    trustDomain: parseTrustDomain('example.org'),
    x509Authorities: [],
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber,
  }
}

function content(sequenceNumber: bigint, ...svids: X509Svid[]): Content {
  return { bundle: bundle(sequenceNumber), svids }
}

function svid(authorityId: string): X509Svid {
  return {
    spiffeId: parseSpiffeId('spiffe://example.org/web'),
    certificates: [],
    privateKey: new Uint8Array(),
    expiresAtMs: 0,
    authorityId,
  }
}

function bench() {
  const clock = new FakeClock()
  const warnings: LogFields[] = []
  const changes: bigint[] = []
  const deliveries: Deliveries = new Deliveries({
    onChanged: () => changes.push(deliveries.survey().sequenceNumber ?? -1n),
    clock,
    log: { ...silentLog, warn: (fields) => void warnings.push(fields) },
  })
  return {
    clock,
    warnings,
    deliveries,
    changes,
    open: (verifies: Verifies = 'x509') => deliveries.open(verifies, { pid: 7, uid: 1000 }),
    sequenceNumber: () => deliveries.survey().sequenceNumber,
    authorities: () => [...deliveries.survey().svids].map(({ authorityId }) => authorityId).sort(),
    /** Whether SVIDs would be given out that need bundle `needed`, as it stands from then on. */
    asked(needed: bigint, verifies: Verifies = 'x509') {
      const asked = { isAnswered: false, promise: Promise.resolve() }
      const knows = (held: Bundle): boolean => held.sequenceNumber >= needed
      asked.promise = deliveries.untilKnown({ verifies, knows }, never).then(() => {
        asked.isAnswered = true
      })
      return asked
    },
  }
}

function send(stream: Delivery, what: Content): void {
  stream.offer(what)
  stream.taken()
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve()
}

test('Deliveries.survey() gives the oldest bundle that a stream was sent last', () => {
  const { open, sequenceNumber } = bench()
  assert.equal(sequenceNumber(), undefined)
  const [first, second] = [open(), open('jwt')]
  assert.equal(sequenceNumber(), undefined)
  send(first, content(1n))
  send(second, content(2n))
  assert.equal(sequenceNumber(), 1n)
  first.offer(content(3n))
  assert.equal(sequenceNumber(), 1n, 'it is on its way only')
  first.taken()
  assert.equal(sequenceNumber(), 2n)
  second.unchanged(content(3n))
  assert.equal(sequenceNumber(), 3n)
  first[Symbol.dispose]()
  second[Symbol.dispose]()
  assert.equal(sequenceNumber(), undefined)
})

test('Deliveries.survey() counts an SVID until every stream that showed it has been sent another one', () => {
  const { open, authorities } = bench()
  const [first, second] = [open(), open()]
  const old = svid('old')
  send(first, content(1n, old))
  send(second, content(1n, old))
  assert.deepEqual(authorities(), ['old', 'old'])
  send(first, content(1n, svid('new')))
  second.offer(content(1n, svid('new')))
  assert.deepEqual(authorities(), ['new', 'new', 'old'])
  second.taken()
  assert.deepEqual(authorities(), ['new', 'new'])
})

test('Deliveries tells of what changes something, and not of streams that come and go', () => {
  const { open, changes, deliveries } = bench()
  const stream = open()
  send(stream, content(1n))
  open()[Symbol.dispose]()
  assert.deepEqual(changes, [])
  const late = open()
  late.offer(content(1n))
  deliveries.advance()
  late.taken()
  assert.deepEqual(changes, [1n], 'it was sent what is no longer held')
  send(stream, content(2n))
  late[Symbol.dispose]()
  assert.deepEqual(changes, [1n, 1n, 2n])
  stream[Symbol.dispose]()
  assert.deepEqual(changes, [1n, 1n, 2n])
})

test('Deliveries.untilKnown() waits for every stream that verifies such SVIDs, and for no other', async () => {
  const { open, asked, deliveries } = bench()
  const [first, second, other, silent] = [open(), open(), open('jwt'), open()]
  for (const stream of [first, second, other]) send(stream, content(1n))
  const one = asked(2n)
  send(first, content(2n))
  second.offer(content(2n))
  await turns()
  assert.equal(one.isAnswered, false)
  second.taken()
  await one.promise
  deliveries.advance()
  const two = asked(3n)
  send(first, content(3n))
  await turns()
  assert.equal(two.isAnswered, false)
  second[Symbol.dispose]()
  await two.promise
  silent[Symbol.dispose]()
})

test('Deliveries.untilKnown() waits for a first message that is still unread', async () => {
  const { open, asked } = bench()
  const stream = open()
  stream.offer(content(1n))
  const one = asked(2n)
  await turns()
  assert.equal(one.isAnswered, false)
  stream.taken()
  await turns()
  assert.equal(one.isAnswered, false)
  send(stream, content(2n))
  await one.promise
})

test('Deliveries.untilKnown() does not wait for a stream that waits for an SVID itself', async () => {
  const { open, asked } = bench()
  const stream = open()
  send(stream, content(1n))
  const one = asked(2n)
  stream.nothing()
  await one.promise
})

test('Deliveries passes over who does not read for 10 seconds, says so once with pid and uid, and until it reads', async () => {
  const { clock, open, asked, sequenceNumber, authorities, warnings, deliveries } = bench()
  const [reads, hangs] = [open(), open()]
  send(reads, content(1n))
  send(hangs, content(1n, svid('old')))
  send(reads, content(2n))
  hangs.offer(content(2n, svid('new')))
  assert.equal(deliveries.survey().lapsesAtMs, clock.now().epochMilliseconds + 10_000)
  const one = asked(2n)
  await clock.advance(seconds(9))
  assert.equal(one.isAnswered, false)
  assert.equal(sequenceNumber(), 1n)
  assert.deepEqual(warnings, [])
  await clock.advance(seconds(1))
  await one.promise
  assert.equal(sequenceNumber(), 2n)
  assert.deepEqual(authorities(), [])
  assert.deepEqual(warnings, [{ pid: 7, uid: 1000 }])
  assert.equal(deliveries.survey().lapsesAtMs, undefined)
  hangs.taken()
  assert.deepEqual(authorities(), ['new'])
  assert.equal(warnings.length, 1)
})

test('Deliveries waits for nobody longer because the clock was set back', () => {
  const clock = new FakeClock()
  let now = clock.now()
  const deliveries = new Deliveries({
    onChanged: () => {},
    clock: { now: () => now, sleep: (duration, signal) => clock.sleep(duration, signal) },
    log: silentLog,
  })
  const stream = deliveries.open('x509', undefined)
  send(stream, content(1n))
  stream.offer(content(2n))
  now = now.subtract({ hours: 1 })
  assert.equal(deliveries.survey().sequenceNumber, undefined)
})

test('Deliveries.untilKnown() ends when its signal aborts', async () => {
  const { open, deliveries } = bench()
  send(open(), content(1n))
  const stop = new AbortController()
  const waiting = deliveries.untilKnown({ verifies: 'x509', knows: () => false }, stop.signal)
  const reason = new Error('the agent is stopping')
  stop.abort(reason)
  await assert.rejects(waiting, reason)
})
