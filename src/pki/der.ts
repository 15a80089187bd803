import { utf8Bytes, utf8Text } from '#base/bytes.ts'
import { dateOf, daysOf } from './calendar.ts'

// DER (ITU-T X.690 §10) as certificates use it: one-byte tags, definite lengths. Nothing here recurses over
// its input, so nesting costs an attacker as much as it costs us; elements are views, not copies.

/** Universal tags of X.680 that certificates use, with the constructed bit where DER demands it. */
export const derTag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  universalString: 0x1c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const

/** Longest element that is read, in bytes of content: three length octets. */
const maxContentBytes = 2 ** 24 - 1
const maxDepth = 32
const maxOidBytes = 64

export interface DerOptions {
  /**
   * For endorsement certificates alone, whose makers got DER wrong: takes integers and lengths that are not
   * minimal, and bytes after the outermost element. Everything stays bounded.
   */
  readonly lenient?: boolean
}

/** One type-length-value of DER. `raw` and `content` are views of the bytes it was read from. */
export class DerElement {
  readonly tag: number
  readonly depth: number
  readonly lenient: boolean
  readonly #bytes: Uint8Array
  readonly #start: number
  readonly #contentStart: number
  readonly #end: number

  constructor(
    bytes: Uint8Array,
    at: { start: number; contentStart: number; end: number; depth: number; lenient: boolean },
  ) {
    this.tag = bytes[at.start] ?? 0
    this.depth = at.depth
    this.lenient = at.lenient
    this.#bytes = bytes
    this.#start = at.start
    this.#contentStart = at.contentStart
    this.#end = at.end
  }

  /** The whole element, tag and length included, exactly as it was received. */
  get raw(): Uint8Array {
    return this.#bytes.subarray(this.#start, this.#end)
  }

  /** The content octets. */
  get content(): Uint8Array {
    return this.#bytes.subarray(this.#contentStart, this.#end)
  }

  /** Reads the elements inside, one by one. */
  reader(): DerReader {
    if ((this.tag & 0x20) === 0) throw malformed(`${tagText(this.tag)} is not constructed`)
    return new DerReader(this.content, { depth: this.depth + 1, lenient: this.lenient })
  }
}

/** Reads elements that stand one after the other. */
export class DerReader {
  readonly #bytes: Uint8Array
  readonly #depth: number
  readonly #lenient: boolean
  #at = 0

  constructor(bytes: Uint8Array, options?: DerOptions & { readonly depth?: number }) {
    this.#bytes = bytes
    this.#depth = options?.depth ?? 0
    this.#lenient = options?.lenient ?? false
    if (this.#depth > maxDepth) throw malformed(`nested deeper than ${maxDepth}`)
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length
  }

  /** The next tag, or undefined at the end. */
  peek(): number | undefined {
    return this.#bytes[this.#at]
  }

  /** @throws SyntaxError when no whole element follows. */
  next(): DerElement {
    const bytes = this.#bytes
    const start = this.#at
    const tag = bytes[start]
    const first = bytes[start + 1]
    if (tag === undefined || first === undefined) throw malformed('it ends inside an element')
    if ((tag & 0x1f) === 0x1f) throw malformed('a tag has more than one byte')
    let contentStart = start + 2
    let length = first
    if (first >= 0x80) {
      const octets = first & 0x7f
      if (octets === 0) throw malformed('a length is indefinite')
      if (octets > 3) throw malformed(`a length is above ${maxContentBytes}`)
      length = 0
      for (let i = 0; i < octets; i++) {
        const octet = bytes[contentStart++]
        if (octet === undefined) throw malformed('it ends inside a length')
        length = length * 256 + octet
      }
      const minimal = length >= 0x80 && length >= 2 ** (8 * (octets - 1))
      if (!minimal && !this.#lenient) throw malformed('a length is not in its shortest form')
    }
    const end = contentStart + length
    if (end > bytes.length) throw malformed(`${tagText(tag)} is cut short`)
    this.#at = end
    return new DerElement(bytes, {
      start,
      contentStart,
      end,
      depth: this.#depth,
      lenient: this.#lenient,
    })
  }

  /** @throws SyntaxError unless an element with `tag` follows. */
  expect(tag: number): DerElement {
    const element = this.next()
    if (element.tag !== tag) {
      throw malformed(`${tagText(element.tag)} stands where ${tagText(tag)} belongs`)
    }
    return element
  }

  /** The next element if it has `tag`, else undefined and nothing is read. */
  optional(tag: number): DerElement | undefined {
    return this.peek() === tag ? this.next() : undefined
  }

  /** @throws SyntaxError when something is left. */
  end(): void {
    if (!this.done) throw malformed('unexpected bytes follow')
  }
}

/** The one element `bytes` hold. @throws SyntaxError; bytes after it are an error unless `lenient`. */
export function readElement(bytes: Uint8Array, options?: DerOptions): DerElement {
  const reader = new DerReader(bytes, options)
  const element = reader.next()
  if (options?.lenient !== true) reader.end()
  return element
}

/** Every element inside a constructed one. */
export function children(of: DerElement): DerElement[] {
  const reader = of.reader()
  const found: DerElement[] = []
  while (!reader.done) found.push(reader.next())
  return found
}

/** The dotted text of an OBJECT IDENTIFIER. */
export function readOid(element: DerElement): string {
  const content = contentOf(element, derTag.oid)
  if (content.length === 0 || content.length > maxOidBytes) {
    throw malformed(`an object identifier has ${content.length} bytes`)
  }
  let text = ''
  let arc = 0
  let starts = true
  for (const byte of content) {
    if (starts && byte === 0x80) throw malformed('an object identifier is not in its shortest form')
    arc = arc * 128 + (byte & 0x7f)
    if (arc > Number.MAX_SAFE_INTEGER) throw malformed('an object identifier has an arc above 2^53')
    starts = byte < 0x80
    if (!starts) continue
    if (text === '') {
      const root = Math.min(Math.floor(arc / 40), 2)
      text = `${root}.${arc - root * 40}`
    } else {
      text += `.${arc}`
    }
    arc = 0
  }
  if (!starts) throw malformed('an object identifier is cut short')
  return text
}

/** The two's-complement content of an INTEGER, checked to be minimal unless read leniently. */
export function readIntegerBytes(element: DerElement): Uint8Array {
  const content = contentOf(element, derTag.integer)
  const [first, second] = content
  if (first === undefined) throw malformed('an integer is empty')
  if (second !== undefined && !element.lenient) {
    const padded = (first === 0 && second < 0x80) || (first === 0xff && second >= 0x80)
    if (padded) throw malformed('an integer is not in its shortest form')
  }
  return content
}

/** The magnitude of an INTEGER without its sign octet. @throws SyntaxError when it is negative. */
export function readUnsigned(element: DerElement): Uint8Array {
  const content = readIntegerBytes(element)
  if ((content[0] ?? 0) >= 0x80) throw malformed('an integer is negative')
  let at = 0
  while (at < content.length - 1 && content[at] === 0) at++
  return content.subarray(at)
}

/** A small INTEGER from 0 to 2^31 - 1: a version, a count. */
export function readSmallInteger(element: DerElement): number {
  const bytes = readUnsigned(element)
  let value = 0
  for (const byte of bytes) value = value * 256 + byte
  if (bytes.length > 4 || value >= 2 ** 31) throw malformed('an integer is above 2^31')
  return value
}

export function readBoolean(element: DerElement): boolean {
  const content = contentOf(element, derTag.boolean)
  const value = content[0]
  const valid = content.length === 1 && (value === 0 || value === 0xff || element.lenient)
  if (!valid) throw malformed('a boolean is neither 00 nor ff')
  return value !== 0
}

/** A BIT STRING; bit 0 is the highest bit of the first byte. */
export interface BitString {
  readonly bytes: Uint8Array
  /** Bits of the last byte that do not count, 0 to 7; they are zero. */
  readonly unusedBits: number
}

export function readBitString(element: DerElement): BitString {
  const content = contentOf(element, derTag.bitString)
  const unusedBits = content[0]
  if (unusedBits === undefined || unusedBits > 7 || (content.length === 1 && unusedBits > 0)) {
    throw malformed('a bit string is not well-formed')
  }
  const last = content[content.length - 1] ?? 0
  if (unusedBits > 0 && (last & ((1 << unusedBits) - 1)) !== 0 && !element.lenient) {
    throw malformed('a bit string has unused bits that are set')
  }
  return { bytes: content.subarray(1), unusedBits }
}

/** A BIT STRING of whole bytes, as keys and signatures are. */
export function readOctetAlignedBits(element: DerElement): Uint8Array {
  const { bytes, unusedBits } = readBitString(element)
  if (unusedBits !== 0) throw malformed('a bit string is not a whole number of bytes')
  return bytes
}

/** Text of an element whose characters are ASCII: IA5String, PrintableString, or an implicit tag of either. */
export function readAscii(element: DerElement): string {
  const content = element.content
  for (const byte of content) if (byte >= 0x80) throw malformed('a string is not ASCII')
  return latin1Text(content)
}

/** Text of any X.520 DirectoryString or IA5String. */
export function readText(element: DerElement): string {
  const content = element.content
  switch (element.tag) {
    case derTag.utf8String:
      try {
        return utf8Text(content)
      } catch (cause) {
        throw new SyntaxError('invalid DER: a string is not UTF-8', { cause })
      }
    case derTag.printableString:
    case derTag.ia5String:
    case 0x12: // NumericString
      return readAscii(element)
    case derTag.teletexString:
      // Treated as Latin-1 by everyone who ever issued one.
      return latin1Text(content)
    case derTag.bmpString:
      return wideText(content, 2)
    case derTag.universalString:
      return wideText(content, 4)
    default:
      throw malformed(`${tagText(element.tag)} stands where a string belongs`)
  }
}

/** Unix time of a UTCTime or GeneralizedTime in the one form RFC 5280 §4.1.2.5 allows: to the second, in UTC. */
export function readTime(element: DerElement): number {
  const { tag, content } = element
  if (tag !== derTag.utcTime && tag !== derTag.generalizedTime) {
    throw malformed(`${tagText(tag)} stands where a time belongs`)
  }
  const isShort = tag === derTag.utcTime
  const yearDigits = isShort ? 2 : 4
  const last = yearDigits + 10
  if (content.length !== last + 1 || content[last] !== 0x5a) {
    throw malformed('a time has not the form YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ')
  }
  const field = (index: number): number => readDigits(content, yearDigits + 2 * index, 2)
  const stated = readDigits(content, 0, yearDigits)
  const year = isShort ? stated + (stated < 50 ? 2000 : 1900) : stated
  const days = daysOf({ year, month: field(0), day: field(1) })
  const [hour, minute, second] = [field(2), field(3), field(4)]
  if (days === undefined || hour > 23 || minute > 59 || second > 59) {
    throw malformed(`there is no time ${latin1Text(content)}`)
  }
  return ((days * 24 + hour) * 60 + minute) * 60 + second
}

/** One element: tag, length, then `parts` joined. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  if (length > maxContentBytes) throw new RangeError(`cannot encode DER of ${length} bytes`)
  const lengthOctets = length < 0x80 ? 0 : length < 0x100 ? 1 : length < 0x10000 ? 2 : 3
  const encoded = new Uint8Array(2 + lengthOctets + length)
  encoded[0] = tag
  encoded[1] = lengthOctets === 0 ? length : 0x80 | lengthOctets
  let at = 2
  for (let shift = 8 * (lengthOctets - 1); shift >= 0; shift -= 8) encoded[at++] = length >> shift
  for (const part of parts) {
    encoded.set(part, at)
    at += part.length
  }
  return encoded
}

export const sequence = (...parts: readonly Uint8Array[]): Uint8Array =>
  tlv(derTag.sequence, ...parts)

/** SET OF: the parts are put into DER's order (X.690 §11.6). */
export function set(...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(derTag.set, ...parts.toSorted(compareEncodings))
}

/** @throws RangeError unless `dotted` is an object identifier. */
export function oid(dotted: string): Uint8Array {
  const arcs = dotted.split('.').map(Number)
  const [root = -1, second = -1, ...rest] = arcs
  const valid =
    arcs.length >= 2 &&
    arcs.every((arc) => Number.isSafeInteger(arc) && arc >= 0) &&
    root <= 2 &&
    (root === 2 || second < 40)
  if (!valid) throw new RangeError(`cannot encode object identifier ${JSON.stringify(dotted)}`)
  const content: number[] = []
  for (const arc of [root * 40 + second, ...rest]) {
    const octets = [arc % 128]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) {
      octets.unshift(0x80 | (left % 128))
    }
    content.push(...octets)
  }
  return tlv(derTag.oid, Uint8Array.from(content))
}

/** A non-negative INTEGER; bytes are big-endian and may have leading zeros. */
export function integer(value: Uint8Array | bigint): Uint8Array {
  if (typeof value === 'bigint') {
    if (value < 0n) throw new RangeError('cannot encode a negative integer')
    const hex = value.toString(16)
    return integer(Uint8Array.fromHex(hex.length % 2 === 0 ? hex : `0${hex}`))
  }
  let start = 0
  while (start < value.length - 1 && value[start] === 0) start++
  const magnitude = value.length === 0 ? zero : value.subarray(start)
  return (magnitude[0] ?? 0) >= 0x80
    ? tlv(derTag.integer, zero, magnitude)
    : tlv(derTag.integer, magnitude)
}

export const octetString = (bytes: Uint8Array): Uint8Array => tlv(derTag.octetString, bytes)

/** A BIT STRING; `unusedBits` bits of the last byte must be zero. */
export const bitString = (bytes: Uint8Array, unusedBits = 0): Uint8Array =>
  tlv(derTag.bitString, Uint8Array.of(unusedBits), bytes)

export const utf8String = (text: string): Uint8Array => tlv(derTag.utf8String, utf8Bytes(text))

/** @throws RangeError when `text` has a character PrintableString lacks; use {@link utf8String} then. */
export function printableString(text: string): Uint8Array {
  if (!isPrintable(text)) {
    throw new RangeError(`cannot encode ${JSON.stringify(text)} as a PrintableString`)
  }
  return tlv(derTag.printableString, utf8Bytes(text))
}

/** Whether PrintableString (X.680 §41.4) has every character of `text`. */
export const isPrintable = (text: string): boolean => /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(text)

/** `[n]` with elements inside: an EXPLICIT tag, or an IMPLICIT one of a constructed type. */
export const contextConstructed = (n: number, ...parts: readonly Uint8Array[]): Uint8Array =>
  tlv(0xa0 | n, ...parts)

/** `[n]` IMPLICIT of a primitive type. */
export const contextPrimitive = (n: number, bytes: Uint8Array): Uint8Array => tlv(0x80 | n, bytes)

export const boolean = (value: boolean): Uint8Array =>
  tlv(derTag.boolean, Uint8Array.of(value ? 0xff : 0))

export const derNull = (): Uint8Array => tlv(derTag.null)

/**
 * A point in time in whole seconds: UTCTime to the end of 2049, GeneralizedTime from 2050 (RFC 5280 §4.1.2.5).
 *
 * @throws RangeError before 1950 or after 9999.
 */
export function time(epochSeconds: number): Uint8Array {
  if (!Number.isInteger(epochSeconds) || epochSeconds < start1950 || epochSeconds >= start10000) {
    throw new RangeError(
      `cannot encode the time ${epochSeconds}: it must be a second from 1950 to 9999`,
    )
  }
  const { year, month, day } = dateOf(Math.floor(epochSeconds / 86400))
  const isShort = year < 2050
  const digits = new Uint8Array(isShort ? 13 : 15)
  let at = 0
  const write = (value: number): void => {
    digits[at++] = 0x30 + Math.floor(value / 10)
    digits[at++] = 0x30 + (value % 10)
  }
  if (!isShort) write(Math.floor(year / 100))
  const second = ((epochSeconds % 86400) + 86400) % 86400
  write(year % 100)
  write(month)
  write(day)
  write(Math.floor(second / 3600))
  write(Math.floor(second / 60) % 60)
  write(second % 60)
  digits[at] = 0x5a
  return tlv(isShort ? derTag.utcTime : derTag.generalizedTime, digits)
}

const start1950 = -631152000
const start10000 = 253402300800
const zero = Uint8Array.of(0)

function contentOf(element: DerElement, tag: number): Uint8Array {
  if (element.tag !== tag) {
    throw malformed(`${tagText(element.tag)} stands where ${tagText(tag)} belongs`)
  }
  return element.content
}

function readDigits(content: Uint8Array, at: number, count: number): number {
  let value = 0
  for (let i = at; i < at + count; i++) {
    const digit = (content[i] ?? 0) - 0x30
    if (digit < 0 || digit > 9) throw malformed('a time has a character that is no digit')
    value = value * 10 + digit
  }
  return value
}

function latin1Text(content: Uint8Array): string {
  let text = ''
  for (const byte of content) text += String.fromCharCode(byte)
  return text
}

function wideText(content: Uint8Array, width: 2 | 4): string {
  if (content.length % width !== 0) throw malformed('a wide string has an odd length')
  const view = new DataView(content.buffer, content.byteOffset, content.length)
  let text = ''
  for (let at = 0; at < content.length; at += width) {
    const point = width === 2 ? view.getUint16(at) : view.getUint32(at)
    if (point > 0x10ffff) throw malformed('a wide string has no Unicode character')
    text += width === 2 ? String.fromCharCode(point) : String.fromCodePoint(point)
  }
  return text
}

function compareEncodings(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

const tagText = (tag: number): string => `tag ${tag.toString(16).padStart(2, '0')}`

const malformed = (why: string): SyntaxError => new SyntaxError(`invalid DER: ${why}`)

/** An element's content that holds another element, as `OCTET STRING` does in extensions. */
export function readNested(element: DerElement): DerElement {
  const reader = new DerReader(element.content, {
    depth: element.depth + 1,
    lenient: element.lenient,
  })
  const inner = reader.next()
  reader.end()
  return inner
}
