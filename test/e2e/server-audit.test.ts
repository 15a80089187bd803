import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { BackupDefinition } from '#rpc/gen/assay/server/v1/backup.ts'
import { InventoryDefinition, State } from '#rpc/gen/assay/server/v1/inventory.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { LoggerDefinition } from '#rpc/gen/spire/api/server/logger/v1/logger.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { TrustDomainDefinition } from '#rpc/gen/spire/api/server/trustdomain/v1/trustdomain.ts'
import { calls, shortName } from '../../src/server/administrators/calls.ts'
import { csrOf, idOf, LiveServer, trustDomain } from '../support/live-server.ts'

const live = await LiveServer.start()
after(() => live[Symbol.asyncDispose]())

const client = {
  agent: live.local.client(AgentDefinition),
  bundle: live.local.client(BundleDefinition),
  entry: live.local.client(EntryDefinition),
  inventory: live.local.client(InventoryDefinition),
  keys: live.local.client(KeysDefinition),
  authority: live.local.client(LocalAuthorityDefinition),
  logger: live.local.client(LoggerDefinition),
  backup: live.local.client(BackupDefinition),
  svid: live.local.client(SVIDDefinition),
  trustDomain: live.local.client(TrustDomainDefinition),
}

type Record = Readonly<{ [field: string]: unknown }>

/** What the record of a call says besides who, from where and how it ended. */
type Facts = Record | ((answer: never) => Record)

const hash = 'd'.repeat(64)
const web = { trustDomain, path: '/web' }
const agent = await live.attest()
const other = await live.attest()
const entry = await live.createEntry({ parent: agent.id, path: '/db' })
const { x509Authorities, jwtAuthorities } = await client.bundle.getBundle({})
const foreign = { trustDomain: 'a.org', x509Authorities }
const secret = 'a-token-that-nobody-may-see'
const ids = { x509: '', jwt: '', oldX509: '', oldJwt: '' }
const keyOf = (of: { readonly authorityId: string } | undefined): string => of?.authorityId ?? ''

/** Every call that changes or issues something, in an order in which each has something to do. */
const changes: readonly (readonly [string, () => Promise<unknown>, Facts])[] = [
  [
    'Entry/BatchCreateEntry',
    () =>
      client.entry.batchCreateEntry({
        entries: [
          {
            spiffeId: web,
            parentId: { trustDomain, path: `/spire/agent/join_token/${secret}` },
            selectors: [{ type: 'unix', value: 'uid:1' }],
            admin: true,
          },
          { spiffeId: { trustDomain, path: '/spire/x' } },
        ],
        outputMask: {},
      }),
    ({ results }: { results: readonly { entry?: { id: string } }[] }) => ({
      items: [
        `${results[0]?.entry?.id} spiffe://example.org/web admin`,
        /^spiffe:\/\/example.org\/spire\/x: .*parent_id/,
      ],
    }),
  ],
  [
    'Entry/BatchUpdateEntry',
    () =>
      client.entry.batchUpdateEntry({
        entries: [{ id: entry.id, hint: 'x' }],
        inputMask: { hint: true },
      }),
    { items: [`${entry.id} spiffe://example.org/db`] },
  ],
  [
    'Entry/BatchDeleteEntry',
    () => client.entry.batchDeleteEntry({ ids: [entry.id, 'none'] }),
    { items: [`${entry.id} spiffe://example.org/db`, /^none: .*not found/] },
  ],
  [
    'Agent/CreateJoinToken',
    () =>
      client.agent.createJoinToken({
        ttl: 60,
        token: secret,
        agentId: { trustDomain, path: '/n' },
      }),
    ({ expiresAt }: { expiresAt: number }) => ({
      expiresAt,
      alias: 'spiffe://example.org/n',
      entry: /^[0-9a-f-]{36}$/,
    }),
  ],
  ['Agent/BanAgent', () => client.agent.banAgent({ id: idOf(agent.id) }), { subject: agent.id }],
  [
    'Agent/DeleteAgent',
    () => client.agent.deleteAgent({ id: idOf(other.id) }),
    { subject: other.id },
  ],
  [
    'Inventory/Import',
    () => client.inventory.import({ records: [{ endorsementKeyHash: hash }] }),
    { created: 1, dryRun: false, changed: [`${hash} allowed`] },
  ],
  [
    'Inventory/SetState',
    () =>
      client.inventory.setState({
        endorsementKeyHash: hash.slice(0, 8),
        state: State.BANNED,
        nodeName: 'n1',
      }),
    { subject: hash, state: 'banned', nodeName: 'n1' },
  ],
  [
    'Inventory/Delete',
    () => client.inventory.delete({ endorsementKeyHash: hash }),
    { subject: hash },
  ],
  [
    'Bundle/BatchCreateFederatedBundle',
    () => client.bundle.batchCreateFederatedBundle({ bundle: [foreign] }),
    { items: ['a.org'] },
  ],
  [
    'Bundle/BatchSetFederatedBundle',
    () => client.bundle.batchSetFederatedBundle({ bundle: [foreign] }),
    { items: ['a.org'] },
  ],
  [
    'Bundle/BatchUpdateFederatedBundle',
    () =>
      client.bundle.batchUpdateFederatedBundle({ bundle: [{ ...foreign, trustDomain: 'b.org' }] }),
    { items: [/^b.org: .*not found/] },
  ],
  [
    'Bundle/BatchDeleteFederatedBundle',
    () => client.bundle.batchDeleteFederatedBundle({ trustDomains: ['a.org'], mode: 1 }),
    { items: ['a.org'], mode: 'delete' },
  ],
  [
    'Bundle/AppendBundle',
    () => client.bundle.appendBundle({ x509Authorities, jwtAuthorities }),
    {
      subject: trustDomain,
      x509Authorities: [/^[0-9a-f]{64}$/],
      jwtAuthorities: jwtAuthorities.map(({ keyId }) => keyId),
    },
  ],
  [
    'SVID/MintX509SVID',
    () =>
      client.svid.mintX509SVID({
        csr: csrOf(generateEcKeyPair('ec-p256'), ['spiffe://example.org/m'], ['m.example']),
      }),
    { subject: 'spiffe://example.org/m', serialNumber: /^\d+$/, dnsNames: ['m.example'] },
  ],
  [
    'SVID/MintJWTSVID',
    () => client.svid.mintJWTSVID({ id: web, audience: ['me'] }),
    { subject: 'spiffe://example.org/web', audience: ['me'] },
  ],
  [
    'LocalAuthority/PrepareX509Authority',
    async () => {
      const { active } = await client.authority.getX509AuthorityState({})
      const { preparedAuthority } = await client.authority.prepareX509Authority({})
      Object.assign(ids, { x509: keyOf(preparedAuthority), oldX509: keyOf(active) })
    },
    () => ({ subject: ids.x509 }),
  ],
  [
    'LocalAuthority/ActivateX509Authority',
    () => client.authority.activateX509Authority({ authorityId: ids.x509 }),
    () => ({ subject: ids.x509 }),
  ],
  [
    'LocalAuthority/TaintX509Authority',
    () => client.authority.taintX509Authority({ authorityId: ids.oldX509 }),
    () => ({ subject: ids.oldX509 }),
  ],
  [
    'LocalAuthority/RevokeX509Authority',
    () => client.authority.revokeX509Authority({ authorityId: ids.oldX509 }),
    () => ({ subject: ids.oldX509 }),
  ],
  [
    'LocalAuthority/PrepareJWTAuthority',
    async () => {
      const { active } = await client.authority.getJWTAuthorityState({})
      const { preparedAuthority } = await client.authority.prepareJWTAuthority({})
      Object.assign(ids, { jwt: keyOf(preparedAuthority), oldJwt: keyOf(active) })
    },
    () => ({ subject: ids.jwt }),
  ],
  [
    'LocalAuthority/ActivateJWTAuthority',
    () => client.authority.activateJWTAuthority({ authorityId: ids.jwt }),
    () => ({ subject: ids.jwt }),
  ],
  [
    'LocalAuthority/TaintJWTAuthority',
    () => client.authority.taintJWTAuthority({ authorityId: ids.oldJwt }),
    () => ({ subject: ids.oldJwt }),
  ],
  [
    'LocalAuthority/RevokeJWTAuthority',
    () => client.authority.revokeJWTAuthority({ authorityId: ids.oldJwt }),
    () => ({ subject: ids.oldJwt }),
  ],
  [
    'LocalAuthority/TaintX509UpstreamAuthority',
    () => client.authority.taintX509UpstreamAuthority({ subjectKeyId: 'ab' }),
    { subject: 'ab' },
  ],
  [
    'LocalAuthority/RevokeX509UpstreamAuthority',
    () => client.authority.revokeX509UpstreamAuthority({ subjectKeyId: 'ab' }),
    { subject: 'ab' },
  ],
  [
    'Keys/Rotate',
    async () => {
      for await (const { predecessorId } of client.keys.rotate({ kind: 'jwt', force: true })) {
        ids.oldJwt = predecessorId
      }
    },
    () => ({ subject: /./, kind: 'jwt', force: true, predecessor: ids.oldJwt }),
  ],
  [
    'Backup/Create',
    async () => {
      for await (const _ of client.backup.create({}));
    },
    // A datastore in memory has none to give.
    { result: 'refused' },
  ],
  ['Keys/Resume', () => client.keys.resume({}), { reason: 'nothing-to-resume' }],
  ['Keys/AcceptClock', () => client.keys.acceptClock({}), ({ now }: { now: number }) => ({ now })],
  [
    'Logger/SetLogLevel',
    () => client.logger.setLogLevel({ newLevel: 4 }),
    { level: 'warn', before: 'debug' },
  ],
  [
    'Logger/ResetLogLevel',
    () => client.logger.resetLogLevel({}),
    { level: 'debug', before: 'warn' },
  ],
]

/** Nothing is behind these yet: what is recorded is that somebody called. */
const unimplemented = [...calls.keys()].map(shortName).filter((name) => {
  return /WIT|FederationRelationship$|RefreshBundle/.test(name) && !/\/(Get|List)/.test(name)
})

for (const [name, change, facts] of changes) {
  test(`${name} leaves a record of who, what, from where, and by which right`, async () => {
    const before = live.audited().length
    let answer: unknown
    try {
      answer = await change()
    } catch (error) {
      if (!(error instanceof AssayError)) throw error
    }
    const records = live.audited().slice(before)
    const record = records.find(({ action }) => shortName(String(action)) === name)
    assert.ok(record !== undefined, `no record of ${name}`)
    const uid = process.getuid?.()
    assert.equal(record['caller'], `uid=${uid} gid=${process.getgid?.()} pid=${process.pid}`)
    assert.equal(record['address'], 'local')
    assert.equal(record['right'], 'socket')
    if (uid === 0) assert.equal(record['user'], 'root')
    assert.match(String(record['result']), /^(allowed|refused|failed)$/)
    assert.match(String(record['requestId']), /^[0-9a-f-]{36}$/)
    const expected = typeof facts === 'function' ? facts(answer as never) : facts
    for (const [field, value] of Object.entries(expected)) matches(record[field], value, field)
  })
}

function matches(found: unknown, expected: unknown, field: string): void {
  if (expected instanceof RegExp) assert.match(String(found), expected, field)
  else if (!Array.isArray(expected)) assert.deepEqual(found, expected, field)
  else {
    assert.ok(Array.isArray(found), field)
    assert.equal(found.length, expected.length, field)
    for (const [index, one] of expected.entries()) matches(found[index], one, `${field}[${index}]`)
  }
}

test('every call that changes something is among these', () => {
  const changing = [...calls]
    .filter(([, { reads, set }]) => !reads && set !== 'administrator')
    .map(([method]) => shortName(method))
  assert.deepEqual([...changes.map(([name]) => name), ...unimplemented].sort(), changing.sort())
})

test('no record has a join token in it', () => {
  const lines = live.lines.filter((line) => line.includes(secret))
  assert.deepEqual(lines, [])
})

test('a record of a remote administrator has the ID and by which right', async () => {
  await live.createEntry({ parent: other.id, path: '/ops', more: { admin: true } })
  const ops = live.connect(await live.mint('/ops'))
  await ops.client(LocalAuthorityDefinition).prepareX509Authority({})
  const record = live
    .audited()
    .findLast(({ action }) => String(action).endsWith('PrepareX509Authority'))
  assert.equal(record?.['caller'], 'spiffe://example.org/ops')
  assert.equal(record?.['right'], 'entry')
  assert.equal(record?.['address'], '127.0.0.1')
})

test('what the server did by itself is its own', () => {
  const own = live.audited().filter(({ caller }) => caller === 'server')
  const prepared = own.find(({ action }) => action === 'authority-prepared')
  assert.ok(prepared !== undefined)
  assert.match(String(prepared['subject']), /./)
  assert.match(String(prepared['kind']), /^(x509|jwt)$/)
})
