import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import type { Connection } from '#rpc/client.ts'
import { ActivityDefinition } from '#rpc/gen/assay/server/v1/activity.ts'
import { ApprovalsDefinition } from '#rpc/gen/assay/server/v1/approvals.ts'
import { BackupDefinition } from '#rpc/gen/assay/server/v1/backup.ts'
import { FeedDefinition } from '#rpc/gen/assay/server/v1/feed.ts'
import { InventoryDefinition } from '#rpc/gen/assay/server/v1/inventory.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { OverviewDefinition } from '#rpc/gen/assay/server/v1/overview.ts'
import { PostQuantumDefinition } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import { RefusalsDefinition } from '#rpc/gen/assay/server/v1/refusals.ts'
import { HealthDefinition } from '#rpc/gen/grpc/health/v1/health.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { DebugDefinition } from '#rpc/gen/spire/api/server/debug/v1/debug.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { LoggerDefinition } from '#rpc/gen/spire/api/server/logger/v1/logger.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { TrustDomainDefinition } from '#rpc/gen/spire/api/server/trustdomain/v1/trustdomain.ts'
import { type MethodDefinition, methodPath, type ServiceDefinition } from '#rpc/service.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { policy } from '../../src/server/api/policy.ts'
import { idOf, LiveServer } from '../support/live-server.ts'

const live = await LiveServer.start()
after(() => live[Symbol.asyncDispose]())

const shared: readonly ServiceDefinition[] = [
  AgentDefinition,
  BundleDefinition,
  EntryDefinition,
  SVIDDefinition,
  TrustDomainDefinition,
  LocalAuthorityDefinition,
  FeedDefinition,
  InventoryDefinition,
  KeysDefinition,
  PostQuantumDefinition,
  RefusalsDefinition,
  ApprovalsDefinition,
  OverviewDefinition,
  ActivityDefinition,
]
const localOnly: readonly ServiceDefinition[] = [
  DebugDefinition,
  LoggerDefinition,
  HealthDefinition,
  BackupDefinition,
]

const elsewhere = parseSpiffeId('spiffe://example.org/spire/agent/elsewhere')
await live.createEntry({ parent: elsewhere, path: '/ops', more: { admin: true } })
await live.createEntry({ parent: elsewhere, path: '/sub', more: { downstream: true } })

const agent = await live.attest()
const banned = await live.attest()
await live.local.client(AgentDefinition).banAgent({ id: idOf(banned.id) })
const deleted = await live.attest()
await live.local.client(AgentDefinition).deleteAgent({ id: idOf(deleted.id) })

/** What each caller counts as, besides anybody. */
const callers: Readonly<Record<string, { connection: Connection; is: string; reason?: string }>> = {
  anonymous: { connection: live.connect(), is: 'any' },
  workload: { connection: live.connect(await live.mint('/web')), is: 'any' },
  local: { connection: live.local, is: 'local' },
  admin: { connection: live.connect(await live.mint('/ops')), is: 'admin' },
  downstream: { connection: live.connect(await live.mint('/sub')), is: 'downstream' },
  agent: { connection: agent.connection, is: 'agent' },
  'banned agent': { connection: banned.connection, is: 'any', reason: 'agent-banned' },
  'deleted agent': { connection: deleted.connection, is: 'any', reason: 'agent-not-attested' },
}

/** Calls a method with an empty request, and takes one answer of a stream. */
async function call(
  connection: Connection,
  service: ServiceDefinition,
  key: string,
  method: MethodDefinition,
): Promise<unknown> {
  type Method = (
    request: object,
    options?: object,
  ) => Promise<unknown> & AsyncIterable<unknown> & Disposable & Stream
  interface Stream {
    send(request: object): Promise<void>
    end(): void
    receive(): Promise<unknown>
  }
  const client = connection.client(service) as unknown as Record<string, Method>
  const invoke = client[key]
  if (invoke === undefined) throw new TypeError(`no method ${key}`)
  try {
    if (method.requestStream) {
      using stream = invoke({ timeoutMs: 5000 })
      await stream.send({})
      await stream.receive()
    } else if (method.responseStream) {
      for await (const _ of invoke({}, { timeoutMs: 5000 })) break
    } else await invoke({}, { timeoutMs: 5000 })
    return undefined
  } catch (error) {
    return error
  }
}

for (const [name, { connection, is, reason }] of Object.entries(callers)) {
  test(`the server lets ${name} call what the policy says and nothing else`, async () => {
    for (const service of [...shared, ...localOnly]) {
      for (const [key, method] of Object.entries(service.methods)) {
        const path = methodPath(service, method)
        const allowed = policy.get(path) ?? []
        const error = await call(connection, service, key, method)
        const offered = shared.includes(service) || is === 'local'
        if (!offered) {
          assert.equal((error as AssayError).code, 'unimplemented', `${name} ${path}`)
          continue
        }
        const denied =
          error instanceof AssayError &&
          error.code === 'permission-denied' &&
          error.message === `authorization denied for method ${path}`
        const may = allowed.some((one) => one === 'any' || one === is)
        assert.equal(!denied, may, `${name} ${path}: ${(error as Error | undefined)?.message}`)
        if (denied && allowed.includes('agent') && reason !== undefined) {
          assert.equal(error.reason, reason, `${name} ${path}`)
        }
      }
    }
  })
}

test('the policy names every method that is served, and no other', () => {
  const served = [...shared, ...localOnly].flatMap((service) =>
    Object.values(service.methods).map((method) => methodPath(service, method)),
  )
  assert.deepEqual([...policy.keys()].sort(), served.sort())
})
