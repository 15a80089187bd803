import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodePem, parsePem } from './pem.ts'

const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i % 256)

test('encodePem() writes 64 characters a line and parsePem() reads them back', () => {
  for (const length of [1, 47, 48, 49, 1000]) {
    const text = encodePem('CERTIFICATE', bytes(length))
    assert.ok(text.split('\n').every((line) => line.length <= 64))
    assert.deepEqual(parsePem(text, 'CERTIFICATE'), [bytes(length)])
  }
})

test('parsePem() passes over text between blocks, other labels and carriage returns', () => {
  const text = [
    'subject=/CN=one\n',
    encodePem('CERTIFICATE', bytes(3)),
    encodePem('PRIVATE KEY', bytes(5)),
    encodePem('CERTIFICATE', bytes(4)).replaceAll('\n', '\r\n'),
  ].join('')
  assert.deepEqual(parsePem(text, 'CERTIFICATE'), [bytes(3), bytes(4)])
  assert.deepEqual(parsePem('no block at all', 'CERTIFICATE'), [])
})

for (const [name, text, message] of [
  ['a block without end', '-----BEGIN A-----\nAAAA\n', /block 1 \(line 1\): no END A/],
  ['an end without begin', '\n-----END A-----\n', /END without BEGIN/],
  ['another end', '-----BEGIN A-----\nAAAA\n-----END B-----', /BEGIN A ends as B/],
  ['a block in a block', '-----BEGIN A-----\n-----BEGIN A-----', /no END A before/],
  ['a broken boundary', '-----BEGIN A----\nAAAA\n-----END A-----', /line 1 is not a boundary/],
  ['what is no base64', '-----BEGIN A-----\nA*AA\n-----END A-----', /block 1 .*not base64/],
  ['missing padding', '-----BEGIN A-----\nAAA\n-----END A-----', /block 1 .*not base64/],
  ['an empty block', '-----BEGIN A-----\n-----END A-----', /block 1 .*not base64/],
  [
    'the second block',
    '-----BEGIN A-----\nAAAA\n-----END A-----\n-----BEGIN A-----\n?\n-----END A-----',
    /block 2 \(line 4\)/,
  ],
] as const) {
  test(`parsePem() refuses ${name}`, () => {
    assert.throws(() => parsePem(text, 'A'), { name: 'SyntaxError', message })
  })
}

test('parsePem() refuses every truncation but the final newline', () => {
  const text = encodePem('CERTIFICATE', bytes(100))
  for (let length = '-----'.length; length < text.length - 1; length++) {
    assert.throws(() => parsePem(text.slice(0, length), 'CERTIFICATE'), SyntaxError)
  }
})

test('parsePem() is bounded in length and number of blocks', () => {
  assert.throws(() => parsePem('x'.repeat(4 * 2 ** 20 + 1), 'A'), /longer than/)
  const many = '-----BEGIN A-----\nAAAA\n-----END A-----\n'.repeat(4097)
  assert.throws(() => parsePem(many, 'A'), /more than 4096 blocks/)
})
