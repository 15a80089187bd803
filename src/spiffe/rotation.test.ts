import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Random } from '#base/random.ts'
import { rotateAtSeconds, rotationFraction, shouldRotate } from './rotation.ts'

const constant = (byte: number): Random => ({
  bytes: (length) => new Uint8Array(length).fill(byte),
})
const hour = { issuedAtSeconds: 1000, expiresAtSeconds: 4600 }

test('rotationFraction() is from 45 to 55 percent', () => {
  assert.equal(rotationFraction(constant(0)), 0.45)
  assert.ok(Math.abs(rotationFraction(constant(0x80)) - 0.5) < 0.001)
  const highest = rotationFraction(constant(0xff))
  assert.ok(highest > 0.5499 && highest < 0.55)
})

test('shouldRotate() turns when the fraction is left, and not a second before', () => {
  assert.equal(rotateAtSeconds(hour, 0.5), 2800)
  assert.equal(shouldRotate({ ...hour, nowSeconds: 2799, fraction: 0.5 }), false)
  assert.equal(shouldRotate({ ...hour, nowSeconds: 2800, fraction: 0.5 }), true)
  assert.equal(shouldRotate({ ...hour, nowSeconds: 2800, fraction: 0.45 }), false)
})

test('shouldRotate() is true for what has expired, whatever the fraction', () => {
  assert.equal(shouldRotate({ ...hour, nowSeconds: 4600, fraction: 0 }), true)
  const reversed = { issuedAtSeconds: 5000, expiresAtSeconds: 4600 }
  assert.equal(shouldRotate({ ...reversed, nowSeconds: 4700, fraction: 0.5 }), true)
})

test('shouldRotate() is false when the clock has been set back before the issue', () => {
  assert.equal(shouldRotate({ ...hour, nowSeconds: 0, fraction: 0.55 }), false)
})

test('rotateAtSeconds() refuses a fraction outside 0 to 1', () => {
  for (const fraction of [-0.1, 1.1, Number.NaN]) {
    assert.throws(() => rotateAtSeconds(hour, fraction), RangeError)
  }
})
