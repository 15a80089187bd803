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

for (const [rule, name, text] of [
  ['A2', 'an empty name', ''],
  ['A5', 'user information', 'u@td'],
  ['A6', 'a port', 'td:80'],
  ['A7', 'upper case', 'Example.org'],
  ['A8', 'a tilde', 't~d'],
  ['A8', 'a letter outside ASCII', 'tđ'],
  ['A8', 'an address in brackets', '[::1]'],
  ['A8', 'a space', 't d'],
  ['A8', 'a newline at the end', 'td\n'],
  ['A8', 'a null character', 'td\0'],
  ['A8', 'a scheme', 'spiffe://td'],
  ['A8', 'a slash', 'td/'],
  ['A9', 'percent encoding', 't%64'],
  ['A18', 'a name of 256 characters', 'a'.repeat(256)],
] as const) {
  test(`${rule} parseTrustDomain() refuses ${name}`, () => {
    assert.throws(() => parseTrustDomain(text), {
      name: 'SyntaxError',
      message: /invalid trust domain/,
    })
  })
}

test('A18 parseTrustDomain() takes 255 characters', () => {
  assert.equal(parseTrustDomain('a'.repeat(255)).length, 255)
})
