import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nextTurn } from '#base/event-loop.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { parseSelector } from '#spiffe/selector.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import type { ServerChange } from '#telemetry/audit.ts'
import { memoryDatastore } from '../../test/support/memory-datastore.ts'
import { keepHouse } from './housekeeping.ts'

test('keepHouse() removes what has expired, and goes on after a failure', async () => {
  const clock = new FakeClock()
  const nowSeconds = clock.now().epochMilliseconds / 1000
  await using datastore = memoryDatastore()
  const entry = (id: string, expiresAtSeconds: number) => ({
    id,
    spiffeId: parseSpiffeId(`spiffe://example.org/${id}`),
    parentId: parseSpiffeId('spiffe://example.org/spire/agent/x'),
    selectors: [parseSelector('unix:uid:1')],
    x509SvidTtlSeconds: 0,
    jwtSvidTtlSeconds: 0,
    federatesWith: [],
    dnsNames: [],
    admin: false,
    downstream: false,
    storeSvid: false,
    hint: '',
    expiresAtSeconds,
    revisionNumber: 0,
    createdAtSeconds: 0,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
  })
  const node = (name: string, canReattest: boolean, serialNumber = '1') => ({
    agentId: parseSpiffeId(`spiffe://example.org/spire/agent/tpm/${name}`),
    attestationType: 'tpm',
    serialNumber,
    expiresAtSeconds: nowSeconds - 7200,
    newSerialNumber: '',
    newExpiresAtSeconds: 0,
    canReattest,
    selectors: [],
    agentVersion: '',
    attestedAtSeconds: 0,
  })
  await datastore.createEntry(entry('soon', nowSeconds + 60))
  await datastore.createEntry(entry('never', 0))
  await datastore.createJoinToken({ value: 't', expiresAtSeconds: nowSeconds + 60 })
  await datastore.putNode(node('gone', true))
  await datastore.putNode(node('keeps', false))
  await datastore.putNode(node('banned', true, ''))

  const prune = datastore.pruneEntries.bind(datastore)
  let failures = 1
  datastore.pruneEntries = (seconds) =>
    failures-- > 0 ? Promise.reject(new Error('disk full')) : prune(seconds)
  const changes: ServerChange[] = []
  const stop = new AbortController()
  const running = keepHouse(
    {
      datastore,
      holdings: { prune: () => {} },
      clock,
      random: { bytes: (length) => new Uint8Array(length) },
      log: silentLog,
      audit: { change: (change) => void changes.push(change) },
      pruneNodesAfterSeconds: 3600,
    },
    stop.signal,
  )
  while (clock.sleeping < 4) await nextTurn()
  await clock.advance(Temporal.Duration.from({ hours: 1, seconds: 1 }))
  while (clock.sleeping < 4) await nextTurn()

  assert.equal(await datastore.entry('soon'), undefined)
  assert.notEqual(await datastore.entry('never'), undefined)
  assert.equal(await datastore.takeJoinToken('t'), undefined)
  const { items } = await datastore.listNodes({}, { pageSize: 0, pageToken: '' })
  assert.deepEqual(
    items.map(({ agentId }) => agentId.split('/').at(-1)),
    ['keeps', 'banned'],
  )
  assert.deepEqual(
    changes.map(({ action, subject, details }) => [action, subject, details]).sort(),
    [
      ['entry-expired', 'soon', { spiffeId: 'spiffe://example.org/soon' }],
      ['join-tokens-expired', undefined, { count: 1 }],
      ['node-forgotten', 'spiffe://example.org/spire/agent/tpm/gone', undefined],
    ],
  )
  stop.abort(new Error('stop'))
  await running
})
