import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseWhole, Reader, sized, u8, u16, u32, u64 } from './marshal.ts'

test('integers are big-endian', () => {
  assert.equal(u8(0xab).toHex(), 'ab')
  assert.equal(u16(0x0102).toHex(), '0102')
  assert.equal(u32(0xfffefdfc).toHex(), 'fffefdfc')
  assert.equal(u64(0x0102030405060708n).toHex(), '0102030405060708')
})

test('sized() puts a 16-bit size before its parts, and refuses what that cannot count', () => {
  assert.equal(sized(u8(1), u16(2)).toHex(), '0003010002')
  assert.throws(() => sized(new Uint8Array(0x10000)), RangeError)
})

test('Reader reads what was written, also from the middle of a buffer', () => {
  const bytes = Uint8Array.fromHex('ffff010002000000030000000000000004000105')
  const reader = new Reader(bytes.subarray(2))
  assert.equal(reader.u8(), 1)
  assert.equal(reader.u16(), 2)
  assert.equal(reader.u32(), 3)
  assert.equal(reader.u64(), 4n)
  assert.equal(reader.sized().toHex(), '05')
  assert.equal(reader.left, 0)
})

test('Reader refuses to read past the end, whatever is asked for', () => {
  for (const read of ['u8', 'u16', 'u32', 'u64', 'sized'] as const)
    assert.throws(() => new Reader(new Uint8Array(0))[read](), RangeError)
  assert.throws(() => new Reader(Uint8Array.of(1)).take(2), RangeError)
  assert.throws(() => new Reader(Uint8Array.fromHex('ffff00')).sized(), RangeError)
})

test('Reader.sized() refuses more than its limit before it looks at the content', () => {
  assert.throws(
    () => new Reader(Uint8Array.fromHex('000301')).sized(2),
    /3 bytes where 2 are the limit/,
  )
})

test('parseWhole() refuses bytes that are left over', () => {
  assert.equal(
    parseWhole(Uint8Array.of(7), (reader) => reader.u8()),
    7,
  )
  assert.throws(() => parseWhole(Uint8Array.of(7, 0), (reader) => reader.u8()), /1 bytes too many/)
})
