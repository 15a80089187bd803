import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { SystemRandom } from '#base/random.ts'
import type { CallContext } from '#rpc/call.ts'
import type { InterceptedCall } from '#rpc/service.ts'
import { Approvals } from '../administrators/approvals.ts'
import { Rights } from '../administrators/rights.ts'
import { approving, type NeededApprovals } from './approving.ts'
import { notesOf } from './call-notes.ts'
import { isApproved, setCaller } from './caller.ts'
import { RequestJudge } from './request-judge.ts'

const joinToken = '/spire.api.server.agent.v1.Agent/CreateJoinToken'
const mint = '/spire.api.server.svid.v1.SVID/MintJWTSVID'
const rotate = '/assay.server.v1.Keys/Rotate'
const id = { trustDomain: 'example.org', path: '/web' }

function begin(needed: NeededApprovals) {
  const approvals = new Approvals({ clock: new FakeClock(), random: new SystemRandom() })
  const privileged = new Set<string>()
  const judge = new RequestJudge({
    guard: {
      isPrivileged: (of) => privileged.has(of),
      isAbovePrivileged: () => false,
      isAdministering: () => false,
    },
    datastore: {
      entry: async () => undefined,
      listEntries: async () => ({ items: [], nextPageToken: '' }),
      node: async () => undefined,
    },
  })
  const intercept = approving({ approvals, needed, judge })
  /** Makes a call as user 1000, and tells whether others have agreed to that it gives rights. */
  const call = async (
    method: string,
    request: unknown,
    handle: (context: CallContext) => Promise<void> = async () => {},
  ): Promise<boolean> => {
    const peer = { kind: 'unix', pid: 1, uid: 1000, gid: 1000, pidfd: undefined, startTime: 0n }
    const context = { peer, method } as unknown as CallContext
    const rights = new Rights('alice', [{ by: 'root', calls: 'all', prefixes: undefined }])
    setCaller(context, { class: 'local', via: 'transport', rights })
    await intercept({ context, request } as unknown as InterceptedCall, () => handle(context))
    return isApproved(context)
  }
  const approve = (): void => {
    for (const { id: of } of approvals.list()) approvals.approve(of, { key: 'b', name: 'bob' })
  }
  return { call, approve, privileged, approvals }
}

const required = { reason: 'approval-required' }

test('a join token whose alias is an entry needs what entries need', async () => {
  const { call } = begin({ entries: 2 })
  await call(joinToken, { token: '', ttl: 60 })
  await assert.rejects(call(joinToken, { token: '', ttl: 60, agentId: id }), required)
})

test('what was agreed to as giving nobody rights is not agreed to when it has come to give some', async () => {
  const { call, approve, privileged } = begin({ svids: 2 })
  const request = { id, audience: ['a'], ttl: 0 }
  await assert.rejects(call(mint, request), required)
  approve()
  assert.equal(await call(mint, request), false)

  await assert.rejects(call(mint, request), required)
  approve()
  privileged.add('spiffe://example.org/web')
  await assert.rejects(call(mint, request), required)
  approve()
  assert.equal(await call(mint, request), true)
})

test('an approved rotation that is over is not begun again by who did not wait for its end', async () => {
  const { call, approve } = begin({ authorities: 2 })
  const request = { kind: 'x509', retire: false, force: false, predecessorId: '' }
  const leaveAt = (step: string) => async (context: CallContext) => {
    notesOf(context).details = { step }
    throw new Error('the operator has gone')
  }
  await assert.rejects(call(rotate, request), required)
  approve()
  await assert.rejects(call(rotate, request, leaveAt('activated')), /has gone/)
  await assert.rejects(call(rotate, request, leaveAt('done')), /has gone/)
  await assert.rejects(call(rotate, request), required)
})

test('a request is shown as what is approved, and nothing that is left open', async () => {
  const { call, approvals } = begin({ authorities: 2 })
  const request = { kind: 'x509', retire: false, force: false, predecessorId: 'only-this-one' }
  await assert.rejects(call(rotate, request), required)
  assert.doesNotMatch(approvals.list()[0]?.request ?? '', /only-this-one/)
})

test('what gives rights is not remembered when it is too long to be shown', async () => {
  const { call, approvals } = begin({ entries: 2 })
  const entries = (count: number, admin: boolean) => ({
    entries: Array.from({ length: count }, (_, index) => ({
      id: '',
      spiffeId: { trustDomain: 'example.org', path: `/${index}` },
      admin: admin && index === count - 1,
      downstream: false,
    })),
  })
  const create = '/spire.api.server.entry.v1.Entry/BatchCreateEntry'
  await assert.rejects(call(create, entries(300, true)), { reason: 'approval-too-long' })
  assert.deepEqual(approvals.list(), [])
  await assert.rejects(call(create, entries(300, false)), required)
  await assert.rejects(call(create, entries(3, true)), required)
  assert.deepEqual(
    approvals.list().map(({ isPrivileged }) => isPrivileged),
    [false, true],
  )
})
