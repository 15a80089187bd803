import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomFraction, randomUuid, SystemRandom } from './random.ts'

test('SystemRandom.bytes() gives as many as are asked for, and never the same ones', () => {
  const random = new SystemRandom()
  const seen = new Set<string>()
  for (let round = 0; round < 500; round++) {
    for (const length of [8, 16, 255, 256, 257, 10_000]) {
      const bytes = random.bytes(length)
      assert.equal(bytes.length, length)
      seen.add(bytes.subarray(0, 8).toHex())
    }
  }
  assert.equal(seen.size, 3000)
})

test('SystemRandom.bytes() gives arrays that belong to their caller alone', () => {
  const random = new SystemRandom()
  const first = random.bytes(16)
  const before = first.toHex()
  random.bytes(16).fill(0)
  assert.equal(first.toHex(), before)
  assert.equal(first.buffer.byteLength, 16)
})

test('randomUuid() is of version 4 and variant 10 (RFC 9562 §5.4)', () => {
  const random = new SystemRandom()
  for (let round = 0; round < 100; round++) {
    assert.match(
      randomUuid(random),
      /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/,
    )
  }
  const zeros = { bytes: (length: number) => new Uint8Array(length) }
  assert.equal(randomUuid(zeros), '00000000-0000-4000-8000-000000000000')
})

test('randomFraction() lies in [0, 1)', () => {
  assert.equal(randomFraction({ bytes: (length) => new Uint8Array(length) }), 0)
  const largest = randomFraction({ bytes: (length) => new Uint8Array(length).fill(255) })
  assert.ok(largest < 1 && largest > 0.9999)
})
