import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { parseSelector, type Selector } from '#spiffe/selector.ts'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain, type TrustDomain } from '#spiffe/trust-domain.ts'
import { newEntry, selectors, testId, testTrustDomain } from '../../../test/support/records.ts'
import { checkEntry } from './entry-fields.ts'

const check = (given: Partial<RegistrationEntry>): void =>
  checkEntry(testTrustDomain, { ...newEntry('e1'), ...given })

test('checkEntry() accepts entries at the limits', () => {
  const two = parseTrustDomain('b.org')
  for (const given of [
    {},
    { id: '-.0-9A-Z_a-z'.repeat(21).slice(0, 255) },
    { parentId: testId('/spire/server') },
    { parentId: testId('/x') },
    { spiffeId: testId('/spirex') },
    { spiffeId: parseSpiffeId(`spiffe://example.org/${'x'.repeat(2027)}`) },
    { x509SvidTtlSeconds: 2 ** 31 - 1 },
    { hint: 'é'.repeat(512) },
    { federatesWith: [two, testTrustDomain] },
    { dnsNames: ['*.a.org', 'a.org', 'x.y.a.org', 'my_host', 'xn--bcher-kva.de', 'A.Org'] },
    { storeSvid: true, selectors: selectors('a', 'b') },
    { disableX509SvidPrefetch: true },
  ] satisfies Partial<RegistrationEntry>[]) {
    assert.doesNotThrow(() => check(given), JSON.stringify(given))
  }
})

test('checkEntry() names the field, the value and the rule of what it refuses (F40)', () => {
  const id = (text: string): SpiffeId => text as SpiffeId
  const unix = parseSelector('unix:uid:1')
  const cases: readonly (readonly [Partial<RegistrationEntry>, RegExp])[] = [
    [{ id: '' }, /id "" must be 1 to 255/],
    [{ id: 'a/b' }, /id "a\/b" must be/],
    [{ id: 'x'.repeat(256) }, /id "x+" must be/],
    [
      { parentId: id('spiffe://example.org') },
      /parent_id "spiffe:\/\/example\.org" must have a path/,
    ],
    [{ parentId: id('spiffe://b.org/x') }, /parent_id .* must be in the trust domain example\.org/],
    [{ parentId: id('nonsense') }, /parent_id "nonsense" invalid SPIFFE ID/],
    [{ spiffeId: id('spiffe://example.org') }, /spiffe_id .* must have a path/],
    [{ spiffeId: id('spiffe://b.org/x') }, /spiffe_id .* must be in the trust domain/],
    [{ spiffeId: id('spiffe://example.org/spire') }, /spiffe_id .* reserved/],
    [{ spiffeId: id('spiffe://example.org/spire/agent/x') }, /spiffe_id .* reserved/],
    [{ spiffeId: id(`spiffe://example.org/${'x'.repeat(2028)}`) }, /longer than 2048 bytes/],
    [{ selectors: [] }, /selectors "\[\]" must be at least one/],
    [{ selectors: ['unix' as Selector] }, /selectors "unix" invalid selector/],
    [{ selectors: ['unix:' as Selector] }, /selectors "unix:" invalid selector/],
    [{ selectors: [unix, unix] }, /selectors .* sorted and without repetition/],
    [{ selectors: selectors('a', 'b').toReversed() }, /sorted and without repetition/],
    [
      { storeSvid: true, selectors: [...selectors('a'), unix] },
      /selectors "test, unix" must be of one type/,
    ],
    [
      { storeSvid: true, disableX509SvidPrefetch: true },
      /disable_x509_svid_prefetch true must not/,
    ],
    [{ x509SvidTtlSeconds: -1 }, /x509_svid_ttl -1 must be 0/],
    [{ jwtSvidTtlSeconds: 1.5 }, /jwt_svid_ttl 1\.5 must be 0/],
    [{ jwtSvidTtlSeconds: 2 ** 31 }, /jwt_svid_ttl 2147483648 must be/],
    [{ federatesWith: ['B' as TrustDomain] }, /federates_with "B" invalid trust domain/],
    [{ federatesWith: [testTrustDomain, testTrustDomain] }, /federates_with .* must not repeat/],
    [{ hint: `${'é'.repeat(512)}x` }, /hint "1025 bytes" must be at most 1024/],
    [{ expiresAtSeconds: -1 }, /expires_at -1 must be a Unix time/],
    [{ dnsNames: ['a.org', 'b..org'] }, /dns_names "b\.\.org" is not a DNS name: label ''/],
    [{ dnsNames: ['x.a.org', '*.a.org'] }, /dns_names "x\.a\.org" is covered by a wildcard/],
  ]
  for (const [given, message] of cases) {
    assert.throws(
      () => check(given),
      { name: 'AssayError', code: 'invalid-argument', reason: 'invalid-entry', message },
      JSON.stringify(given).slice(0, 100),
    )
  }
})
