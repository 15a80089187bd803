import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import type { CallContext, Peer } from '#rpc/call.ts'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { type AdministratorRow, Administrators } from '../administrators/administrators.ts'
import { parseCalls } from '../administrators/calls.ts'
import type { AttestedNodeRecord } from '../datastore/datastore.ts'
import { Authorizer, type Standing } from './authorize.ts'

const clock = new FakeClock()
const nowSeconds = clock.now().epochMilliseconds / 1000
const agentId = parseSpiffeId('spiffe://example.org/spire/agent/tpm/a')
const renew = '/spire.api.server.agent.v1.Agent/RenewAgent'
const publish = '/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority'
const ban = '/spire.api.server.agent.v1.Agent/BanAgent'

const node: AttestedNodeRecord = {
  agentId,
  attestationType: 'tpm',
  serialNumber: '1',
  expiresAtSeconds: nowSeconds + 60,
  newSerialNumber: '2',
  newExpiresAtSeconds: nowSeconds + 120,
  canReattest: true,
  selectors: [],
  agentVersion: '',
  attestedAtSeconds: 0,
}

const names = (known: Readonly<Record<string, number>>) => ({
  refresh: () => {},
  nameOf: (id: number) => Object.keys(known).find((name) => known[name] === id),
  idOf: async (name: string) => known[name],
})

/** An authorizer whose memory and datastore may differ, as on two servers of one trust domain. */
function authorizerWith(
  rows: { memory?: AttestedNodeRecord; stored?: AttestedNodeRecord },
  more: {
    adminIds?: readonly SpiffeId[]
    rows?: readonly AdministratorRow[]
    standing?: Partial<Standing>
  } = {},
) {
  const state = { stored: rows.stored, reads: 0 }
  const authorizer = new Authorizer({
    trustDomain: parseTrustDomain('example.org'),
    administrators: new Administrators({
      rows: more.rows,
      adminIds: more.adminIds ?? [],
      users: names({ alice: 1000 }),
      groups: names({ ops: 2000 }),
      ownUid: 990,
    }),
    standing: {
      node: () => rows.memory,
      isAdmin: () => false,
      isDownstream: () => false,
      ...more.standing,
    },
    clock,
    datastore: {
      async node() {
        state.reads++
        return state.stored
      },
      async updateNode(_id, change) {
        if (state.stored === undefined) throw new Error('no such row')
        state.stored = change(state.stored)
        return state.stored
      },
    },
  })
  return { authorizer, state }
}

const tls = (id: SpiffeId | undefined, serialNumber = '1', expires = nowSeconds + 60): Peer => ({
  kind: 'tls',
  address: '192.0.2.1',
  spiffeId: id,
  certificate: new Uint8Array(),
  serialNumber,
  expiresAtSeconds: expires,
  keyAgreement: 'X25519MLKEM768',
  pq: undefined,
  exporter: () => new Uint8Array(),
})
const unix: Peer = { kind: 'unix', pid: 1, uid: 0, gid: 0, pidfd: undefined, startTime: 0n }

const calling = (
  method: string,
  peer: Peer,
  signal = new AbortController().signal,
): CallContext => ({
  peer,
  method,
  signal,
  metadata: () => [],
  requestId: 'r',
})

test('Authorizer answers for an agent in good standing from memory', async () => {
  const { authorizer, state } = authorizerWith({ memory: node })
  assert.deepEqual(await authorizer.authorize(calling(renew, tls(agentId))), {
    class: 'agent',
    via: 'datastore',
    node,
  })
  assert.equal(state.reads, 0)
})

test('Authorizer records a renewed SVID as the one in use at its first use', async () => {
  const { authorizer, state } = authorizerWith({ memory: node, stored: node })
  await authorizer.authorize(calling(renew, tls(agentId, '2')))
  assert.equal(state.stored?.serialNumber, '2')
  assert.equal(state.stored?.expiresAtSeconds, nowSeconds + 120)
  assert.equal(state.stored?.newSerialNumber, '')
})

test('Authorizer asks the datastore before it refuses: another server may have written', async () => {
  const { authorizer } = authorizerWith({ stored: { ...node, serialNumber: '7' } })
  const caller = await authorizer.authorize(calling(renew, tls(agentId, '7')))
  assert.equal(caller.class, 'agent')
})

test('Authorizer refuses an agent that is banned while its renewed SVID is recorded', async () => {
  const { authorizer, state } = authorizerWith({ memory: node, stored: node })
  const authorizing = authorizer.authorize(calling(renew, tls(agentId, '2')))
  // The row has been read by now, and not yet been written.
  state.stored = { ...node, serialNumber: '', newSerialNumber: '' }
  await assert.rejects(authorizing, { reason: 'agent-banned' })
})

for (const [what, peer, rows, reason] of [
  ['whose SVID has expired', tls(agentId, '1', nowSeconds), { memory: node }, 'agent-expired'],
  ['that has not attested', tls(agentId), {}, 'agent-not-attested'],
  ['that is banned', tls(agentId), { stored: { ...node, serialNumber: '' } }, 'agent-banned'],
  ['with an SVID of before', tls(agentId, '9'), { memory: node, stored: node }, 'agent-not-active'],
  [
    'without a serial number, although no renewal is pending',
    tls(agentId, ''),
    { memory: { ...node, newSerialNumber: '' }, stored: { ...node, newSerialNumber: '' } },
    'agent-not-active',
  ],
] as const) {
  test(`Authorizer refuses an agent ${what}`, async () => {
    const { authorizer } = authorizerWith(rows)
    await assert.rejects(authorizer.authorize(calling(renew, peer)), {
      code: 'permission-denied',
      reason,
    })
  })
}

test('Authorizer does not look workloads up in the datastore', async () => {
  const { authorizer, state } = authorizerWith({})
  const workload = parseSpiffeId('spiffe://example.org/web')
  await assert.rejects(authorizer.authorize(calling(renew, tls(workload))))
  assert.equal(state.reads, 0)
})

test('Authorizer lets an ID of admin_ids administer, of whatever trust domain it is', async () => {
  const foreign = parseSpiffeId('spiffe://other.org/ops')
  const { authorizer } = authorizerWith({}, { adminIds: [foreign] })
  assert.equal((await authorizer.authorize(calling(ban, tls(foreign)))).class, 'admin')
  await assert.rejects(authorizer.authorize(calling(renew, tls(foreign))))
})

for (const [what, method, more] of [
  ['an admin by configuration', ban, { adminIds: [parseSpiffeId('spiffe://example.org/ops')] }],
  ['an admin by entry', ban, { standing: { isAdmin: () => true } }],
  ['a downstream server', publish, { standing: { isDownstream: () => true } }],
] as const) {
  test(`Authorizer refuses ${what} whose SVID expired while the connection stayed open`, async () => {
    const { authorizer } = authorizerWith({}, more)
    const id = parseSpiffeId('spiffe://example.org/ops')
    await authorizer.authorize(calling(method, tls(id)))
    await assert.rejects(authorizer.authorize(calling(method, tls(id, '1', nowSeconds))), {
      code: 'permission-denied',
      reason: 'svid-expired',
    })
  })
}

test('Authorizer lets nobody call a method the policy does not name', async () => {
  const { authorizer } = authorizerWith({ memory: node })
  for (const peer of [unix, tls(agentId), tls(undefined)]) {
    await assert.rejects(authorizer.authorize(calling('/x.Y/Z', peer)), {
      code: 'permission-denied',
    })
  }
})

test('Authorizer refuses a call that has been given up, whoever it seems to be from', async () => {
  const { authorizer } = authorizerWith({})
  const gone = new AbortController()
  gone.abort(new Error('gone'))
  await assert.rejects(authorizer.authorize(calling(ban, unix, gone.signal)), /gone/)
})

const row = (given: Partial<AdministratorRow>): AdministratorRow => ({
  unix_user: undefined,
  unix_group: undefined,
  spiffe_id: undefined,
  calls: 'all',
  spiffe_id_prefixes: undefined,
  ...given,
})
const process = (uid: number, gid = uid, groups: readonly number[] = []): Peer => ({
  ...unix,
  uid,
  gid,
  groups,
})
const list = '/spire.api.server.entry.v1.Entry/ListEntries'
const rotate = '/spire.api.server.localauthority.v1.LocalAuthority/PrepareX509Authority'

test('Authorizer tells local administrators apart by user, group and supplementary group', async () => {
  const rows = [
    row({ unix_user: 'alice', calls: parseCalls(['entries']) }),
    row({ unix_group: 'ops', calls: parseCalls(['authorities']) }),
    row({ unix_user: '1001' }),
    row({ unix_user: 'nobody-knows' }),
  ]
  const { authorizer } = authorizerWith({}, { rows })
  const by = async (peer: Peer, method: string): Promise<string | undefined> => {
    const caller = await authorizer.authorize(calling(method, peer))
    return caller.class === 'local' ? caller.rights.permission(method)?.by : caller.class
  }
  assert.equal(await by(process(1000), list), 'unix_user alice')
  assert.equal(await by(process(1001), list), 'unix_user 1001')
  assert.equal(await by(process(1002, 2000), rotate), 'unix_group ops')
  assert.equal(await by(process(1002, 1002, [7, 2000]), rotate), 'unix_group ops')
  assert.equal(await by(process(1000, 1000, [2000]), rotate), 'unix_group ops')
  assert.equal(await by(process(0), rotate), 'root')
  assert.equal(await by(process(990), rotate), 'server user')
  await assert.rejects(by(process(1000), rotate), {
    reason: 'right-missing',
    message: `authorization denied for method ${rotate}: alice has no right to 'authorities'; whoever may change server.yaml can add it to calls in administrators`,
  })
  await assert.rejects(by(process(1002, 2000), list), {
    reason: 'right-missing',
    message: /no right to 'entries' nor 'read';/,
  })
  await assert.rejects(by(process(1003), list), {
    reason: 'not-administrator',
    message: /^authorization denied for method \S+: uid 1003 is no administrator here;/,
  })
  assert.equal(await by(process(1003), '/grpc.health.v1.Health/Check'), undefined)
})

test('Administrators name rows about nobody this machine knows', async () => {
  const administrators = new Administrators({
    rows: [
      row({ unix_user: 'alice' }),
      row({ unix_user: 'alicia' }),
      row({ unix_user: '5' }),
      row({ unix_group: 'ops' }),
      row({ unix_group: 'opps' }),
    ],
    adminIds: [],
    users: names({ alice: 1000 }),
    groups: names({ ops: 2000 }),
    ownUid: 990,
  })
  assert.deepEqual(await administrators.unknownNames(), ['unix_user alicia', 'unix_group opps'])
})

test('Authorizer lets root and the own user in when administrators names nobody', async () => {
  const { authorizer } = authorizerWith({}, { rows: [] })
  await authorizer.authorize(calling(list, process(0)))
  await authorizer.authorize(calling(list, process(990)))
  await assert.rejects(authorizer.authorize(calling(list, process(1000))), {
    reason: 'not-administrator',
  })
})

test('Authorizer narrows an ID that admin_ids or an entry made an administrator by its row', async () => {
  const id = parseSpiffeId('spiffe://example.org/ops')
  const rows = [row({ spiffe_id: id, calls: parseCalls(['read']) })]
  for (const more of [{ adminIds: [id] }, { standing: { isAdmin: () => true } }, {}]) {
    const { authorizer } = authorizerWith({}, { ...more, rows })
    assert.equal((await authorizer.authorize(calling(list, tls(id)))).class, 'admin')
    await assert.rejects(authorizer.authorize(calling(ban, tls(id))), { reason: 'right-missing' })
  }
})

test('Authorizer refuses calls that are not about single IDs to who is kept to some', async () => {
  const id = parseSpiffeId('spiffe://example.org/ops')
  const rows = [row({ spiffe_id: id, spiffe_id_prefixes: [id] })]
  const { authorizer } = authorizerWith({}, { rows })
  await authorizer.authorize(calling(list, tls(id)))
  await assert.rejects(authorizer.authorize(calling(rotate, tls(id))), {
    reason: 'cannot-be-narrowed',
    message: /a row of administrators without spiffe_id_prefixes/,
  })
})
