import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SystemClock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { connectUnix } from '#rpc/client.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import {
  EntryDefinition,
  type SyncAuthorizedEntriesRequest,
  SyncAuthorizedEntriesResponse,
} from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { Bundle } from '#rpc/gen/spire/api/types/bundle.ts'
import { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import { RpcServer } from '#rpc/server.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { newAuthority } from '../../../test/support/certificates.ts'
import type { Update } from '../manager/update.ts'
import { poll } from './poll.ts'

const random = new SystemRandom()
const pageSize = 3

function entry(id: string, revisionNumber = 0): Entry {
  return Entry.fromPartial({
    id,
    spiffeId: { trustDomain: 'example.org', path: `/${id}` },
    selectors: [{ type: 'unix', value: 'uid:1000' }],
    federatesWith: ['partner.example', 'absent.example'],
    revisionNumber,
    createdAt: 1,
  })
}

/** A server as SPIRE's, with a page of three. */
class SpireLike implements AsyncDisposable {
  readonly entries = new Map<string, Entry>()
  /** Ids of the entries that were sent whole, one list a synchronization. */
  readonly sent: string[][] = []
  readonly directory = mkdtempSync(join(tmpdir(), 'assay-poll-'))
  readonly server = new RpcServer({ log: silentLog, random, clock: new SystemClock() })

  constructor(...ids: string[]) {
    for (const id of ids) this.entries.set(id, entry(id))
  }

  async listen(): Promise<string> {
    const path = join(this.directory, 'server.sock')
    const { certificate } = newAuthority('example.org')
    const bundle = (trustDomain: string): Bundle =>
      Bundle.fromPartial({
        trustDomain,
        x509Authorities: [{ asn1: certificate }, { asn1: new Uint8Array([1, 2, 3]) }],
        sequenceNumber: 4n,
      })
    this.server.addService(BundleDefinition, {
      getBundle: async () => bundle('example.org'),
      getFederatedBundle: async ({ trustDomain }) => {
        if (trustDomain === 'partner.example') return bundle(trustDomain)
        throw new AssayError('not-found', 'bundle not found')
      },
    })
    this.server.addService(EntryDefinition, {
      syncAuthorizedEntries: (requests) => this.#sync(requests),
    })
    await this.server.listenUnix({ path, mode: 0o700 })
    return path
  }

  async *#sync(
    requests: AsyncIterable<SyncAuthorizedEntriesRequest>,
  ): AsyncGenerator<SyncAuthorizedEntriesResponse> {
    const sent: string[] = []
    this.sent.push(sent)
    let isFirst = true
    const all = [...this.entries.values()]
    for await (const { ids } of requests) {
      if (isFirst && all.length <= pageSize) {
        sent.push(...all.map(({ id }) => id))
        yield SyncAuthorizedEntriesResponse.fromPartial({ entries: all })
        return
      }
      const wanted = isFirst ? all : all.filter(({ id }) => ids.includes(id))
      for (let from = 0; from < Math.max(wanted.length, 1); from += pageSize) {
        const page = wanted.slice(from, from + pageSize)
        const more = from + pageSize < wanted.length
        if (isFirst) {
          const entryRevisions = page.map(({ id, revisionNumber, createdAt }) => ({
            id,
            revisionNumber,
            createdAt,
          }))
          yield SyncAuthorizedEntriesResponse.fromPartial({ entryRevisions, more })
        } else {
          sent.push(...page.map(({ id }) => id))
          yield SyncAuthorizedEntriesResponse.fromPartial({ entries: page, more })
        }
      }
      isFirst = false
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop(0)
    rmSync(this.directory, { recursive: true })
  }
}

async function updatesOf(server: SpireLike, between: (() => void)[]): Promise<string[][]> {
  const clock = new FakeClock()
  const stop = new AbortController()
  using connection = connectUnix(await server.listen(), { clock: new SystemClock() })
  const updates = poll(
    {
      connection,
      trustDomain: parseTrustDomain('example.org'),
      interval: Temporal.Duration.from({ seconds: 5 }),
      clock,
      random,
      log: silentLog,
    },
    stop.signal,
  )
  const seen: string[][] = []
  for (let turn = 0; ; turn += 1) {
    const next = updates.next()
    if (turn > 0) {
      while (clock.sleeping === 0) await Promise.resolve()
      await clock.advance(Temporal.Duration.from({ seconds: 6 }))
    }
    const { value }: { value: Update | undefined } = await next
    assert.ok(value)
    assert.equal(value.complete, true)
    assert.equal(value.bundle?.x509Authorities.length, 1, 'what cannot be read is left out')
    const names = value.federatedBundles.map(({ trustDomain }) => trustDomain)
    assert.deepEqual(names, value.entries.length > 0 ? ['partner.example'] : [])
    seen.push(value.entries.map(({ id, revisionNumber }) => `${id}@${revisionNumber}`).sort())
    const change = between[turn]
    if (change === undefined) break
    change()
  }
  stop.abort(new Error('the test has seen enough'))
  await updates.return(undefined)
  return seen
}

test('poll() takes a short list whole, each time', async () => {
  await using server = new SpireLike('a', 'b')
  const seen = await updatesOf(server, [() => server.entries.delete('a')])
  assert.deepEqual(seen, [['a@0', 'b@0'], ['b@0']])
})

test('poll() of a long list asks only for what is new or has changed', async () => {
  await using server = new SpireLike('a', 'b', 'c', 'd', 'e')
  const seen = await updatesOf(server, [
    () => {
      server.entries.set('c', entry('c', 1))
      server.entries.set('f', entry('f'))
      server.entries.delete('a')
    },
    () => {},
  ])
  assert.deepEqual(seen, [
    ['a@0', 'b@0', 'c@0', 'd@0', 'e@0'],
    ['b@0', 'c@1', 'd@0', 'e@0', 'f@0'],
    ['b@0', 'c@1', 'd@0', 'e@0', 'f@0'],
  ])
  assert.deepEqual(server.sent, [['a', 'b', 'c', 'd', 'e'], ['c', 'f'], []])
})

test('poll() passes an entry over that cannot be read', async () => {
  await using server = new SpireLike('a')
  server.entries.set('bad', { ...entry('bad'), selectors: [] })
  assert.deepEqual(await updatesOf(server, []), [['a@0']])
})
