import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newSerialNumbers, serialNumberText } from './serial-numbers.ts'

test('newSerialNumbers() draws 16 bytes in turn, never zero, and asks for more when it has none left', () => {
  let asked = 0
  const next = newSerialNumbers({
    bytes(length) {
      asked++
      const pool = new Uint8Array(length)
      // The first number of every pool is zero and must be passed over.
      for (let at = 16; at < length; at++) pool[at] = asked
      return pool
    },
  })
  const first = Array.from({ length: 255 }, next)
  assert.ok(first.every((serial) => serial.toHex() === '01'.repeat(16)))
  assert.equal(asked, 1)
  assert.equal(next().toHex(), '02'.repeat(16))
  assert.equal(asked, 2)
})

test('newSerialNumbers() hands out bytes of their own', () => {
  const next = newSerialNumbers({ bytes: (length) => new Uint8Array(length).fill(7) })
  next().fill(0)
  assert.equal(next().toHex(), '07'.repeat(16))
})

test('serialNumberText() is decimal', () => {
  assert.equal(serialNumberText(Uint8Array.fromHex('00ff')), '255')
  assert.equal(serialNumberText(new Uint8Array(16).fill(0xff)), `${2n ** 128n - 1n}`)
})
