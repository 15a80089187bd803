import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTrustDomain } from './trust-domain.ts'

test('A8 parseTrustDomain() takes a-z, 0-9, dot, dash and underscore', () => {
  for (const name of ['example.org', 'a_b-c.d', '0', 'xn--bcher-kva', '..', '__proto__']) {
    assert.equal(parseTrustDomain(name), name)
  }
})

test('A10 parseTrustDomain() gives names that look like hosts or addresses no special treatment', () => {
  for (const name of ['10.0.0.1', 'localhost', '-x', '.', '256.256.256.256']) {
    assert.equal(parseTrustDomain(name), name)
  }
})

for (const [title, text] of [
  ['A2 parseTrustDomain() refuses an empty name', ''],
  ['A5 parseTrustDomain() refuses user information', 'u@td'],
  ['A6 parseTrustDomain() refuses a port', 'td:80'],
  ['A7 parseTrustDomain() refuses upper case', 'Example.org'],
  ['A8 parseTrustDomain() refuses a tilde', 't~d'],
  ['A8 parseTrustDomain() refuses a letter outside ASCII', 'tđ'],
  ['A8 parseTrustDomain() refuses an address in brackets', '[::1]'],
  ['A8 parseTrustDomain() refuses a space', 't d'],
  ['A8 parseTrustDomain() refuses a newline at the end', 'td\n'],
  ['A8 parseTrustDomain() refuses a null character', 'td\0'],
  ['A8 parseTrustDomain() refuses a scheme', 'spiffe://td'],
  ['A8 parseTrustDomain() refuses a slash', 'td/'],
  ['A9 parseTrustDomain() refuses percent encoding', 't%64'],
  ['A18 parseTrustDomain() refuses a name of 256 characters', 'a'.repeat(256)],
] as const) {
  test(title, () => {
    assert.throws(() => parseTrustDomain(text), {
      name: 'SyntaxError',
      message: /invalid trust domain/,
    })
  })
}

test('A18 parseTrustDomain() takes 255 characters', () => {
  assert.equal(parseTrustDomain('a'.repeat(255)).length, 255)
})
