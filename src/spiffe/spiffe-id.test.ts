import assert from 'node:assert/strict'
import { test } from 'node:test'
import { below, pick, seeded } from '../../test/support/seeded.ts'
import {
  maxSpiffeIdBytes,
  parseSpiffeId,
  pathOf,
  serverId,
  spiffeId,
  trustDomainOf,
} from './spiffe-id.ts'
import { parseTrustDomain } from './trust-domain.ts'

for (const [title, text] of [
  ['A1 parseSpiffeId() refuses another scheme', 'https://td/a'],
  ['A1 parseSpiffeId() refuses a scheme without slashes', 'spiffe:/td/a'],
  ['A1 parseSpiffeId() refuses nothing', ''],
  ['A1 parseSpiffeId() refuses a space before', ' spiffe://td/a'],
  ['A2 parseSpiffeId() refuses a path without trust domain', 'spiffe:///a'],
  ['A2 parseSpiffeId() refuses a scheme alone', 'spiffe://'],
  ['A3 parseSpiffeId() refuses a query', 'spiffe://td/a?x=1'],
  ['A3 parseSpiffeId() refuses an empty query', 'spiffe://td/a?'],
  ['A3 parseSpiffeId() refuses a query on the trust domain', 'spiffe://td?x=1'],
  ['A4 parseSpiffeId() refuses a fragment', 'spiffe://td/a#f'],
  ['A4 parseSpiffeId() refuses an empty fragment', 'spiffe://td/a#'],
  ['A5 parseSpiffeId() refuses a user', 'spiffe://u@td/a'],
  ['A5 parseSpiffeId() refuses a user and password', 'spiffe://u:p@td/a'],
  ['A5 parseSpiffeId() refuses an empty user', 'spiffe://@td/a'],
  ['A6 parseSpiffeId() refuses a port', 'spiffe://td:80/a'],
  ['A6 parseSpiffeId() refuses an empty port', 'spiffe://td:/a'],
  ['A7 parseSpiffeId() refuses a trust domain in upper case', 'spiffe://TD/a'],
  ['A8 parseSpiffeId() refuses a tilde in the trust domain', 'spiffe://t~d/a'],
  ['A8 parseSpiffeId() refuses a letter outside ASCII in the trust domain', 'spiffe://tđ/a'],
  ['A8 parseSpiffeId() refuses an IPv6 address', 'spiffe://[::1]/a'],
  ['A9 parseSpiffeId() refuses percent encoding in the trust domain', 'spiffe://t%64/a'],
  ['A11 parseSpiffeId() refuses percent encoding in the path', 'spiffe://td/%61'],
  ['A12 parseSpiffeId() refuses an empty path segment at the start', 'spiffe://td//a'],
  ['A12 parseSpiffeId() refuses an empty path segment', 'spiffe://td/a//b'],
  ["A13 parseSpiffeId() refuses a segment '.'", 'spiffe://td/./a'],
  ["A13 parseSpiffeId() refuses a segment '..'", 'spiffe://td/a/..'],
  ['A14 parseSpiffeId() refuses a slash after the trust domain', 'spiffe://td/'],
  ['A14 parseSpiffeId() refuses a slash at the end', 'spiffe://td/a/'],
  ['A15 parseSpiffeId() refuses a space in the path', 'spiffe://td/a b'],
  ['A15 parseSpiffeId() refuses a colon in the path', 'spiffe://td/a:b'],
  ['A15 parseSpiffeId() refuses a letter outside ASCII in the path', 'spiffe://td/ä'],
  ['A15 parseSpiffeId() refuses an at sign in the path', 'spiffe://td/a@b'],
  ['A15 parseSpiffeId() refuses a newline at the end', 'spiffe://td/a\n'],
  ['A15 parseSpiffeId() refuses a null character', 'spiffe://td/a\0'],
  ['A15 parseSpiffeId() refuses a backslash', 'spiffe://td\\a'],
  ['A19 parseSpiffeId() refuses a scheme in upper case', 'SPIFFE://td/a'],
] as const) {
  test(title, () => {
    assert.throws(() => parseSpiffeId(text), { name: 'SyntaxError', message: /invalid SPIFFE ID/ })
  })
}

for (const [title, text] of [
  ['A1 parseSpiffeId() accepts spiffe://td/a', 'spiffe://td/a'],
  ['A8 parseSpiffeId() accepts spiffe://a_b-c.d/x', 'spiffe://a_b-c.d/x'],
  ['A10 parseSpiffeId() accepts spiffe://10.0.0.1/a', 'spiffe://10.0.0.1/a'],
  ['A10 parseSpiffeId() accepts spiffe://localhost/a', 'spiffe://localhost/a'],
  ['A10 parseSpiffeId() accepts spiffe://-x/a', 'spiffe://-x/a'],
  ['A13 parseSpiffeId() accepts spiffe://td/...', 'spiffe://td/...'],
  ['A13 parseSpiffeId() accepts spiffe://td/.a', 'spiffe://td/.a'],
  ['A15 parseSpiffeId() accepts spiffe://td/aZ09.-_/b', 'spiffe://td/aZ09.-_/b'],
  ['A22 parseSpiffeId() accepts spiffe://td', 'spiffe://td'],
] as const) {
  test(title, () => {
    assert.equal(parseSpiffeId(text), text)
  })
}

test('A16 parseSpiffeId() accepts 2048 bytes', () => {
  const text = `spiffe://td/${'a'.repeat(maxSpiffeIdBytes - 'spiffe://td/'.length)}`
  assert.equal(parseSpiffeId(text).length, 2048)
  assert.equal(pathOf(parseSpiffeId(text)).length, 2048 - 'spiffe://td'.length)
})

test('A17 parseSpiffeId() refuses 2049 bytes', () => {
  const text = `spiffe://td/${'a'.repeat(maxSpiffeIdBytes + 1 - 'spiffe://td/'.length)}`
  assert.throws(() => parseSpiffeId(text), /longer than 2048 bytes/)
})

test('A18 parseSpiffeId() refuses a trust domain of 256 characters', () => {
  assert.ok(parseSpiffeId(`spiffe://${'a'.repeat(255)}/b`))
  assert.throws(() => parseSpiffeId(`spiffe://${'a'.repeat(256)}/b`), SyntaxError)
})

test('A19 parseSpiffeId() tells paths apart by case', () => {
  assert.notEqual(parseSpiffeId('spiffe://td/A'), parseSpiffeId('spiffe://td/a'))
})

test('parseSpiffeId() names what is wrong without echoing more than 256 characters', () => {
  assert.throws(
    () => parseSpiffeId(`http://${'x'.repeat(2000)}`),
    (error: SyntaxError) => error.message.length < 400,
  )
})

test('K1 parseSpiffeId() accepts exactly what a grammar of the standard does, and parts rejoin', () => {
  const random = seeded(6)
  const grammar = /^spiffe:\/\/[a-z0-9._-]{1,255}(\/(?!\.{1,2}(\/|$))[a-zA-Z0-9._-]+)*$/
  const pieces = [
    'spiffe://',
    'td',
    'TD',
    '/',
    '//',
    '.',
    '..',
    'a',
    'A',
    '_',
    '-',
    '%',
    '?',
    '#',
    '@',
    ':',
    ' ',
    'é',
  ]
  const weighted = [...pieces, 'a', 'b', '/a', '/b', '/x.y', 'td']
  let accepted = 0
  for (let i = 0; i < 20_000; i++) {
    const tail = Array.from({ length: below(random, 6) }, () => pick(random, weighted)).join('')
    const text = random() < 0.9 ? `spiffe://${tail}` : tail
    let parsed = true
    try {
      const id = parseSpiffeId(text)
      assert.equal(spiffeId(trustDomainOf(id), pathOf(id)), id)
      accepted++
    } catch (error) {
      assert.ok(error instanceof SyntaxError)
      parsed = false
    }
    assert.equal(parsed, grammar.test(text), text)
  }
  assert.ok(accepted > 1000)
})

test('trustDomainOf() and pathOf() take an ID apart', () => {
  const id = parseSpiffeId('spiffe://td/a/b')
  assert.equal(trustDomainOf(id), 'td')
  assert.equal(pathOf(id), '/a/b')
  assert.equal(pathOf(parseSpiffeId('spiffe://td')), '')
  assert.equal(trustDomainOf(parseSpiffeId('spiffe://td')), 'td')
})

test('spiffeId() refuses a path without a slash, or that would change the trust domain', () => {
  const td = parseTrustDomain('td')
  for (const path of ['/', 'a/', '@evil/a', ':1/a', '?x', '/a/']) {
    assert.throws(() => spiffeId(td, path), SyntaxError, path)
  }
  assert.equal(spiffeId(td, ''), 'spiffe://td')
  assert.equal(serverId(td), 'spiffe://td/spire/server')
})

test('spiffeId() refuses a path that runs on from the trust domain', () => {
  assert.throws(() => spiffeId(parseTrustDomain('td'), 'more/a'), SyntaxError)
})
