import assert from 'node:assert/strict'
import { test } from 'node:test'
import { canonicalJson, requestForPeople, verifyShownWhole, words } from './request-in-words.ts'

test('canonicalJson() is one text for one value', () => {
  const value = { b: 1n, a: [Uint8Array.of(1, 2), { d: undefined, c: null }] }
  assert.equal(canonicalJson(value), '{"a":["AQI=",{"c":null}],"b":"1"}')
  assert.equal(canonicalJson({ a: value.a, b: 1n }), canonicalJson(value))
  assert.notEqual(canonicalJson({ a: '1' }), canonicalJson({ a: 1 }))
  // A list is no set.
  assert.notEqual(canonicalJson([1, 2]), canonicalJson([2, 1]))
})

test('requestForPeople() shows no join token, and not more than one can read', () => {
  assert.equal(requestForPeople({ ttl: 1, token: 'secret' }), '{"token":"(not shown)","ttl":1}')
  assert.equal(requestForPeople({ ttl: 1, token: '' }), '{"ttl":1}')
  assert.match(requestForPeople({ a: 'x'.repeat(20_000) }), /… \(3624 characters more\)$/)
})

test('words() names and counts what gives rights before all else', () => {
  const entryAt = (index: number) => ({
    id: '',
    spiffeId: { trustDomain: 'a.org', path: `/${'x'.repeat(40)}${index}` },
    admin: index === 299,
    downstream: index === 200,
  })
  const entries = Array.from({ length: 300 }, (_, index) => entryAt(index))
  const text = words('/spire.api.server.entry.v1.Entry/BatchCreateEntry', { entries })
  assert.match(text, /^create 300 entries \(with the admin or downstream flag: 2\): /)
  assert.match(text, /x200 \(downstream\), \S+x299 \(admin\), /)
})

test('verifyShownWhole() refuses what is shown only in part', () => {
  verifyShownWhole('/x.Y/Z', { a: 'x'.repeat(16 * 1024 - 8) })
  assert.throws(() => verifyShownWhole('/x.Y/Z', { a: 'x'.repeat(16 * 1024 - 7) }), {
    code: 'failed-precondition',
    reason: 'approval-too-long',
    message: /; split it into smaller requests$/,
  })
})

const local = '/spire.api.server.localauthority.v1.LocalAuthority'
const inventory = '/assay.server.v1.Inventory'
const record = { endorsementKeyHash: 'ab'.repeat(32), nodeName: 'n1', state: 1 }

for (const [method, request, expected] of [
  [`${local}/PrepareX509Authority`, {}, 'prepare a new X.509 authority'],
  [`${local}/ActivateJWTAuthority`, { authorityId: 'k1' }, 'activate the JWT authority k1'],
  [
    `${local}/RevokeX509Authority`,
    { authorityId: 'k1' },
    'revoke the X.509 authority k1, for good',
  ],
  [
    `${local}/TaintX509UpstreamAuthority`,
    { subjectKeyId: 'ab' },
    'taint the upstream X.509 authority ab',
  ],
  [
    '/assay.server.v1.Keys/Rotate',
    { kind: 'x509', retire: true, force: false },
    'rotate the x509 authority, then revoke the old one and destroy its key',
  ],
  [
    '/assay.server.v1.Keys/Rotate',
    { kind: 'jwt', retire: false, force: true },
    'rotate the jwt authority, waiting for nobody',
  ],
  [`${inventory}/SetState`, record, `allow the TPM ${'ab'.repeat(32)} as n1`],
  [
    `${inventory}/Import`,
    { records: Array.from({ length: 7 }, () => record) },
    `import 7 TPMs: ${Array.from({ length: 5 }, () => `${'ab'.repeat(8)}… as n1`).join(', ')} and 2 more`,
  ],
  [
    '/spire.api.server.entry.v1.Entry/BatchCreateEntry',
    { entries: [{ id: '', spiffeId: { trustDomain: 'a.org', path: '/x' }, admin: true }] },
    'create 1 entry (with the admin or downstream flag: 1): spiffe://a.org/x (admin)',
  ],
  [
    '/spire.api.server.agent.v1.Agent/CreateJoinToken',
    { ttl: 60, token: 'secret' },
    'call Agent/CreateJoinToken with {"token":"(not shown)","ttl":60}',
  ],
] as const) {
  test(`words() says: ${expected.slice(0, 60)}`, () =>
    assert.equal(words(method, request), expected))
}
