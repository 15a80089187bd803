import assert from 'node:assert/strict'
import { test } from 'node:test'
import { coveredByWildcard, dnsNameFault } from './dns-name.ts'

test('dnsNameFault() finds none in names certificates may have', () => {
  const longest = `${`${'a'.repeat(62)}.`.repeat(4)}a`
  for (const name of [
    'com',
    'a-hello.com',
    '*.example.com',
    'xn--ls8h.org',
    '1.2.3.4',
    '_x.y',
    'a'.repeat(63),
    longest,
  ]) {
    assert.equal(dnsNameFault(name), undefined, name)
  }
})

test('dnsNameFault() finds what breaks the rules', () => {
  for (const [name, why] of [
    ['', /empty/],
    ['.', /ends with a dot/],
    ['example.com.', /ends with a dot/],
    ['.example.com', /label ''/],
    ['*', /whole first label/],
    ['*.', /ends with a dot/],
    ['foo.*.bar', /whole first label/],
    ['*.foo.*.bar', /whole first label/],
    ['*.*.bar', /whole first label/],
    ['a*.bar', /whole first label/],
    [' ', /ASCII/],
    ['a b.c', /ASCII/],
    ['a\u0000.c', /ASCII/],
    ['💩.com', /ASCII/],
    ['a/b', /label 'a\/b'/],
    ['-hello.com', /label '-hello'/],
    ['hello-.com', /label 'hello-'/],
    ['ab--c.com', /third and fourth/],
    ['xn--a', /not valid IDNA/],
    ['xn--zzzz-zzzz', /not valid IDNA/],
    ['xn--BCHER-kva.de', /not valid IDNA/],
    ['a'.repeat(64), /1 to 63/],
    ['a.'.repeat(127), /longer than 253/],
  ] as const) {
    assert.match(dnsNameFault(name) ?? 'none', why, JSON.stringify(name))
  }
})

test('coveredByWildcard() finds a name one label below a wildcard', () => {
  assert.equal(coveredByWildcard(['example.com', '*.example.com']), undefined)
  assert.equal(coveredByWildcard(['foo.bar.example.com', '*.example.com']), undefined)
  assert.equal(coveredByWildcard(['foo.example.com', '*.example.com']), 'foo.example.com')
  assert.equal(coveredByWildcard(['*.example.com', 'foo.example.com']), 'foo.example.com')
  assert.equal(coveredByWildcard([]), undefined)
})
