import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concatBytes } from '#base/bytes.ts'
import { sequence, utf8String } from '#pki/der.ts'
import { cutCertificates } from './endorsement.ts'

const one = sequence(utf8String('one'.repeat(60)))
const two = sequence(utf8String('two'))

for (const [what, content, expected] of [
  ['one certificate', one, [one]],
  ['two in a row', concatBytes(one, two), [one, two]],
  ['zeros after it', concatBytes(one, new Uint8Array(40)), [one]],
  ['ones after it', concatBytes(one, new Uint8Array(40).fill(0xff)), [one]],
  ['a TCG header before it', concatBytes(Uint8Array.of(0x10, 1, 0, 0, one.length), one), [one]],
  ['a second one that is cut short', concatBytes(one, one.subarray(0, 20)), [one]],
  ['fill alone', new Uint8Array(100).fill(0xff), []],
  ['nothing', new Uint8Array(0), []],
  ['a sequence that claims 8 MiB', Uint8Array.fromHex('30837fffff00'), []],
] as const)
  test(`cutCertificates() finds what an NV index with ${what} holds`, () => {
    assert.deepEqual(cutCertificates(content), [...expected])
  })
