import assert from 'node:assert/strict'
import { test } from 'node:test'
import { oid, sequence, set, utf8String } from './der.ts'
import { attributeType, encodeName, nameText, parseName } from './name.ts'

const spire = [
  { type: attributeType.country, value: 'US' },
  { type: attributeType.organization, value: 'SPIRE' },
]

test('encodeName() writes PrintableString where it can, UTF8String where it must', () => {
  assert.equal(
    encodeName(spire).toHex(),
    '301d310b3009060355040613025553310e300c060355040a13055350495245',
  )
  const umlaut = [{ type: attributeType.commonName, value: 'Grüße' }]
  assert.deepEqual(parseName(encodeName(umlaut)), umlaut)
  assert.deepEqual(parseName(encodeName([])), [])
})

test('parseName() lists the attributes of a name part with several', () => {
  const pair = (type: string, value: string) => sequence(oid(type), utf8String(value))
  const name = sequence(set(pair('2.5.4.3', 'a'), pair('2.5.4.10', 'b')), set(pair('2.5.4.6', 'c')))
  assert.deepEqual(
    parseName(name).map(({ value }) => value),
    ['a', 'b', 'c'],
  )
})

test('parseName() refuses every truncation, an empty part and what is no sequence', () => {
  const whole = encodeName(spire)
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => parseName(whole.subarray(0, length)), SyntaxError)
  }
  assert.throws(() => parseName(sequence(set())), SyntaxError)
  assert.throws(() => parseName(set()), SyntaxError)
})

test('nameText() cannot be made to look like another name', () => {
  assert.equal(nameText(spire), 'C=US, O=SPIRE')
  assert.equal(nameText([{ type: '1.2.3', value: 'a, CN=b\\\n' }]), '1.2.3=a\\, CN=b\\\\\\u{a}')
})
