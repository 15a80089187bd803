import assert from 'node:assert/strict'
import { test } from 'node:test'
import { base64Url, parseBase64Url } from './bytes.ts'

test('parseBase64Url() reads back what base64Url() writes', () => {
  for (let length = 0; length < 8; length++) {
    const bytes = Uint8Array.from({ length }, (_, i) => 255 - i)
    assert.deepEqual(parseBase64Url(base64Url(bytes)), bytes)
  }
})

test('parseBase64Url() refuses padding, white space, the other alphabet and stray bits', () => {
  for (const text of ['AA==', ' AAAA', 'AA\nAA', '+/+/', 'A', 'AB', 'AAB', 'ä']) {
    assert.throws(() => parseBase64Url(text), SyntaxError, JSON.stringify(text))
  }
})
