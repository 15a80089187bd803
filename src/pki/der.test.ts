import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { below, seeded } from '../../test/support/seeded.ts'
import {
  bitString,
  boolean,
  children,
  contextConstructed,
  contextPrimitive,
  type DerElement,
  DerReader,
  derTag,
  integer,
  octetString,
  oid,
  printableString,
  readBitString,
  readBoolean,
  readElement,
  readIntegerBytes,
  readNested,
  readOctetAlignedBits,
  readOid,
  readSmallInteger,
  readText,
  readTime,
  readUnsigned,
  sequence,
  set,
  time,
  tlv,
  utf8String,
} from './der.ts'

const hex = (text: string): Uint8Array => Uint8Array.fromHex(text.replaceAll(' ', ''))
const read = (text: string): DerElement => readElement(hex(text))
const lenient = (text: string): DerElement => readElement(hex(text), { lenient: true })

test('tlv() writes lengths in their shortest form', () => {
  for (const [length, header] of [
    [0, '0400'],
    [127, '047f'],
    [128, '048180'],
    [255, '0481ff'],
    [256, '04820100'],
    [65535, '0482ffff'],
    [65536, '0483010000'],
  ] as const) {
    const encoded = octetString(new Uint8Array(length))
    assert.equal(encoded.subarray(0, encoded.length - length).toHex(), header)
    assert.equal(readElement(encoded).content.length, length)
  }
})

test('tlv() refuses what three length octets cannot say', () => {
  const large = new Uint8Array(2 ** 23)
  assert.throws(() => tlv(0x04, large, large), RangeError)
})

test('readElement() keeps the bytes as they came', () => {
  const encoded = sequence(integer(5n), utf8String('å'))
  const element = readElement(encoded)
  assert.equal(element.tag, derTag.sequence)
  assert.deepEqual(element.raw, encoded)
  assert.deepEqual(
    children(element).map((child) => child.raw.toHex()),
    ['020105', '0c02c3a5'],
  )
})

for (const [name, bytes] of [
  ['a tag of several bytes', '1f 81 00 00'],
  ['an indefinite length', '30 80 02 01 05 00 00'],
  ['four length octets', '04 84 00 00 00 01 00'],
  ['a long form that the short form could say', '04 81 01 00'],
  ['a leading zero in a length', '04 82 00 80'],
  ['content that ends early', '04 05 00 00'],
  ['bytes after the element', '05 00 00'],
  ['nothing', ''],
] as const) {
  test(`readElement() refuses ${name}`, () => {
    assert.throws(() => read(bytes), SyntaxError)
  })
}

test('readElement() takes a long length and trailing bytes when lenient, and no more', () => {
  assert.equal(lenient('04 81 01 61').content.toHex(), '61')
  assert.equal(lenient('04 01 61 ff ff').raw.toHex(), '040161')
  assert.throws(() => lenient('30 80 00 00'), SyntaxError)
  assert.throws(() => lenient('04 02 61'), SyntaxError)
  assert.throws(() => lenient('1f 81 00 00'), SyntaxError)
})

test('DerElement.reader() refuses nesting deeper than 32 and primitive elements', () => {
  let nested: Uint8Array = integer(1n)
  for (let i = 0; i < 40; i++) nested = sequence(nested)
  let element = readElement(nested)
  assert.throws(() => {
    for (;;) element = element.reader().next()
  }, /nested deeper than 32/)
  assert.throws(() => read('04 02 05 00').reader(), /not constructed/)
})

test('DerReader tells what stands where something else belongs', () => {
  const reader = new DerReader(hex('05 00 01 01 ff'))
  assert.throws(() => new DerReader(hex('05 00')).expect(derTag.integer), /tag 05 .* tag 02/)
  assert.equal(reader.optional(derTag.boolean), undefined)
  assert.equal(reader.optional(derTag.null)?.tag, derTag.null)
  assert.throws(() => reader.end(), /unexpected bytes/)
  assert.equal(readBoolean(reader.next()), true)
  reader.end()
})

test('oid() and readOid() are inverse', () => {
  for (const dotted of ['0.0', '1.2.840.113549.1.1.11', '2.5.29.17', '2.999.1', '2.23.133.8.1']) {
    assert.equal(readOid(readElement(oid(dotted))), dotted)
  }
  assert.equal(oid('1.2.840.10045.4.3.2').toHex(), '06082a8648ce3d040302')
})

for (const [name, bytes] of [
  ['no bytes', '06 00'],
  ['a padded arc', '06 03 2a 80 01'],
  ['an arc that does not end', '06 02 2a 86'],
  ['an arc above 2^53', '06 0a 2a ff ff ff ff ff ff ff ff 7f'],
  ['more than 64 bytes', `06 41 ${'2a'.repeat(65)}`],
] as const) {
  test(`readOid() refuses ${name}`, () => {
    assert.throws(() => readOid(read(bytes)), SyntaxError)
  })
}

test('oid() refuses what is no object identifier', () => {
  for (const dotted of ['', '1', '3.1', '1.40', '1.-2', '1.2.x', '1.2.1e30']) {
    assert.throws(() => oid(dotted), RangeError, dotted)
  }
})

test('integer() writes the shortest form that is not negative', () => {
  assert.equal(integer(0n).toHex(), '020100')
  assert.equal(integer(127n).toHex(), '02017f')
  assert.equal(integer(128n).toHex(), '02020080')
  assert.equal(integer(hex('00 00 80')).toHex(), '02020080')
  assert.equal(integer(new Uint8Array(0)).toHex(), '020100')
  assert.throws(() => integer(-1n), RangeError)
})

test('readIntegerBytes() refuses padding unless lenient', () => {
  for (const padded of ['02 02 00 7f', '02 02 ff 80', '02 00']) {
    assert.throws(() => readIntegerBytes(read(padded)), SyntaxError)
  }
  assert.equal(readIntegerBytes(lenient('02 02 00 7f')).toHex(), '007f')
  assert.throws(() => readIntegerBytes(lenient('02 00')), SyntaxError)
})

test('readUnsigned() and readSmallInteger() refuse negative and large numbers', () => {
  assert.equal(readUnsigned(read('02 02 00 80')).toHex(), '80')
  assert.throws(() => readUnsigned(read('02 01 80')), /negative/)
  assert.equal(readSmallInteger(read('02 04 7f ff ff ff')), 2 ** 31 - 1)
  assert.throws(() => readSmallInteger(read('02 05 00 80 00 00 00')), /above/)
})

test('readBoolean() takes 00 and ff only, any byte when lenient', () => {
  assert.equal(readBoolean(readElement(boolean(true))), true)
  assert.equal(readBoolean(readElement(boolean(false))), false)
  assert.throws(() => readBoolean(read('01 01 01')), SyntaxError)
  assert.throws(() => readBoolean(read('01 00')), SyntaxError)
  assert.equal(readBoolean(lenient('01 01 01')), true)
})

test('readBitString() refuses unused bits that are set or do not exist', () => {
  assert.deepEqual(readBitString(readElement(bitString(hex('a0'), 5))), {
    bytes: hex('a0'),
    unusedBits: 5,
  })
  for (const bad of ['03 00', '03 02 08 00', '03 01 01', '03 02 05 a1']) {
    assert.throws(() => readBitString(read(bad)), SyntaxError, bad)
  }
  assert.throws(() => readOctetAlignedBits(read('03 02 05 a0')), SyntaxError)
})

test('readText() reads every kind of directory string', () => {
  assert.equal(readText(readElement(utf8String('Grüße'))), 'Grüße')
  assert.equal(readText(readElement(printableString('Example CA'))), 'Example CA')
  assert.equal(readText(read('14 02 e5 41')), 'åA')
  assert.equal(readText(read('1e 04 00 e5 00 41')), 'åA')
  assert.equal(readText(read('1c 08 00 01 f6 00 00 00 00 41')), '😀A')
  assert.throws(() => readText(read('0c 01 ff')), SyntaxError)
  assert.throws(() => readText(read('16 01 e5')), SyntaxError)
  assert.throws(() => readText(read('1e 03 00 41 00')), SyntaxError)
  assert.throws(() => readText(read('1c 04 00 11 00 00')), SyntaxError)
  assert.throws(() => readText(read('02 01 00')), SyntaxError)
  assert.throws(() => printableString('a@b'), RangeError)
})

test('time() switches to GeneralizedTime in 2050, and readTime() reads both back', () => {
  const at = (text: string): number => Temporal.Instant.from(text).epochMilliseconds / 1000
  for (const [text, encoded] of [
    ['1950-01-01T00:00:00Z', '500101000000Z'],
    ['1999-12-31T23:59:59Z', '991231235959Z'],
    ['2026-02-28T12:00:01Z', '260228120001Z'],
    ['2049-12-31T23:59:59Z', '491231235959Z'],
    ['2050-01-01T00:00:00Z', '20500101000000Z'],
    ['9999-12-31T23:59:59Z', '99991231235959Z'],
  ] as const) {
    const element = readElement(time(at(text)))
    assert.equal(new TextDecoder().decode(element.content), encoded)
    assert.equal(element.tag, encoded.length === 13 ? derTag.utcTime : derTag.generalizedTime)
    assert.equal(readTime(element), at(text))
  }
  for (const bad of [at('1949-12-31T23:59:59Z'), 253402300800, 1.5, Number.NaN]) {
    assert.throws(() => time(bad), RangeError)
  }
})

for (const text of [
  '260228120001', // no Z
  '2602281200Z', // no seconds
  '260228120001+0000',
  '260230000000Z', // 30 February
  '260228240000Z',
  '260228120060Z', // leap second
  '2602281200010Z',
]) {
  test(`readTime() refuses ${text}`, () => {
    assert.throws(() => readTime(readElement(tlv(derTag.utcTime, utf8Bytes(text)))), SyntaxError)
  })
}

test('readTime() refuses fractions and other tags', () => {
  assert.throws(
    () => readTime(readElement(tlv(derTag.generalizedTime, utf8Bytes('20260101000000.5Z')))),
    SyntaxError,
  )
  assert.throws(() => readTime(readElement(utf8String('260101000000Z'))), SyntaxError)
})

test('set() puts its elements into the order of DER', () => {
  assert.equal(set(hex('0c0161'), hex('0201ff'), hex('0c00')).toHex(), '31080201ff0c000c0161')
})

test('contextConstructed() and contextPrimitive() set the class and the constructed bit', () => {
  assert.equal(contextConstructed(3, hex('0500')).toHex(), 'a3020500')
  assert.equal(contextPrimitive(6, hex('61')).toHex(), '860161')
})

test('readNested() refuses bytes after the element inside', () => {
  assert.equal(readNested(readElement(octetString(integer(7n)))).raw.toHex(), '020107')
  assert.throws(() => readNested(readElement(octetString(hex('02010700')))), SyntaxError)
})

test('readElement() reads back every random tree, and refuses every truncation of it', () => {
  const random = seeded(1)
  const tree = (depth: number): Uint8Array =>
    depth === 0 || random() < 0.3
      ? octetString(Uint8Array.from({ length: below(random, 200) }, () => below(random, 256)))
      : sequence(...Array.from({ length: below(random, 4) }, () => tree(depth - 1)))
  const rebuilt = (element: DerElement): Uint8Array =>
    element.tag === derTag.sequence
      ? sequence(...children(element).map(rebuilt))
      : octetString(element.content)
  for (let i = 0; i < 100; i++) {
    const encoded = tree(5)
    assert.deepEqual(rebuilt(readElement(encoded)), encoded)
    for (let length = 0; length < encoded.length; length += 1 + below(random, 20)) {
      assert.throws(() => readElement(encoded.subarray(0, length)), SyntaxError)
    }
  }
})
