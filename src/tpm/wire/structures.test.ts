import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readAttestedHead, readQuoteInfo } from './attested.ts'
import { parseWhole, type Reader } from './marshal.ts'
import {
  pcrSelection,
  readPcrSelections,
  samePcrSelection,
  writePcrSelection,
} from './pcr-selection.ts'
import {
  endorsementQualifiedName,
  nameOf,
  type PublicArea,
  readPublicArea,
  writePublicArea,
} from './public-area.ts'
import { readSignature, writeSignature } from './signature.ts'
import { attestationKeyTemplate, endorsementKeyProfiles } from './templates.ts'
import { firmwareText, vendorText } from './vendor.ts'

// Captured from swtpm 0.7.1: an attestation key of ours, and a quote over PCRs 0, 7 and 16 by it.
const attestationKey = Uint8Array.fromHex(
  '0023000b00050472000000100018000b00030010002001c4c77eeb179737d7491d1647948b9bace5fb2892a43b00433761e59fc768990020cc1db15410e33e97c45ea63b8245c785bca781a2defb880f7e1b79b5c498fe5b',
)
const attested = Uint8Array.fromHex(
  'ff54434780180022000b4940053ae44adcfa0cac542fe061d34004d263eda798b1ce263c306a43e3740f0020aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa00000000000002fb000000030000000000201910230016363600000001000b0381000100202ea9ab9198d1638007400cd2c3bef1cc745b864b76011a0e1bc52180ac6452d4',
)
const signature = Uint8Array.fromHex(
  '0018000b00201ca50b58c21b136edd335cfba1cf7365f0e834aa0c2119a8e8bb4ad43c8567e60020553cf02115fcd5a839db129c030e1ceffddeac76097dd5534ed6e8a87ccac439',
)

/** Reading any beginning of `bytes`, and `bytes` with one more, must fail; nothing else may be thrown. */
function refusesEveryOtherLength(bytes: Uint8Array, read: (reader: Reader) => unknown): void {
  parseWhole(bytes, read)
  for (let length = 0; length < bytes.length; length++)
    assert.throws(() => parseWhole(bytes.subarray(0, length), read), RangeError, `${length} bytes`)
  const longer = new Uint8Array(bytes.length + 1)
  longer.set(bytes)
  assert.throws(() => parseWhole(longer, read), RangeError)
}

/** Whatever becomes of `bytes`, `read` returns or throws RangeError. */
function survivesEveryFlip(bytes: Uint8Array, read: (reader: Reader) => unknown): void {
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = bytes.with(bit >> 3, (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7)))
    try {
      parseWhole(changed, read)
    } catch (error) {
      assert.ok(error instanceof RangeError, String(error))
    }
  }
}

const readQuote = (reader: Reader) => ({ ...readAttestedHead(reader), ...readQuoteInfo(reader) })

for (const [what, bytes, read] of [
  ['readPublicArea()', attestationKey, readPublicArea],
  ['readSignature()', signature, readSignature],
  ['readAttestedHead() and readQuoteInfo()', attested, readQuote],
] as const) {
  test(`${what} refuses every truncation and a trailing byte`, () => {
    refusesEveryOtherLength(bytes, read)
  })
  test(`${what} throws nothing but RangeError`, () => survivesEveryFlip(bytes, read))
}

test('readPublicArea() reads what writePublicArea() writes, for every template', () => {
  const templates: PublicArea[] = [
    ...endorsementKeyProfiles,
    { template: attestationKeyTemplate },
  ].map(({ template }) => template)
  for (const template of templates) {
    const bytes = writePublicArea(template)
    assert.deepEqual(parseWhole(bytes, readPublicArea), template)
    refusesEveryOtherLength(bytes, readPublicArea)
  }
})

test('readPublicArea() refuses keys, ciphers, schemes and exponents it does not know', () => {
  const [ecc, , , rsa] = endorsementKeyProfiles.map(({ template }) => writePublicArea(template))
  assert.ok(ecc !== undefined && rsa !== undefined)
  const afterPolicy = 2 + 2 + 4 + 2 + 32
  const refuse = (bytes: Uint8Array, at: number, value: number, message: RegExp): void => {
    assert.throws(() => parseWhole(bytes.with(at, value), readPublicArea), message)
  }
  refuse(ecc, 1, 0x08, /key type 0x8/)
  refuse(ecc, 3, 0x12, /hash algorithm 0x12/)
  refuse(ecc, afterPolicy + 1, 0x26, /symmetric algorithm/)
  refuse(ecc, afterPolicy + 3, 0x40, /symmetric algorithm/)
  refuse(ecc, afterPolicy + 7, 0x1a, /scheme 0x1a/)
  refuse(ecc, afterPolicy + 9, 0x20, /curve 0x20/)
  refuse(ecc, afterPolicy + 11, 0x20, /key derivation scheme/)
  refuse(rsa, afterPolicy + 13, 0x03, /exponent 3/)
})

test('nameOf() and endorsementQualifiedName() are those of the TPM', () => {
  const area = parseWhole(attestationKey, readPublicArea)
  const { qualifiedSigner } = parseWhole(attested, readQuote)
  assert.equal(
    nameOf(area).toHex(),
    '000b4ab0bde3734b4c9fe2063a36557f3e829529a25f1bd71ec304318c7ef46086c8',
  )
  assert.deepEqual(endorsementQualifiedName(area), qualifiedSigner)
})

test('readSignature() reads what writeSignature() writes, and refuses other algorithms', () => {
  assert.deepEqual(writeSignature(parseWhole(signature, readSignature)), signature)
  const rsa = { algorithm: 0x14, hash: 'sha256', bytes: new Uint8Array(256) } as const
  assert.deepEqual(parseWhole(writeSignature(rsa), readSignature), rsa)
  assert.throws(
    () => parseWhole(signature.with(1, 0x1b), readSignature),
    /signature algorithm 0x1b/,
  )
})

test('pcrSelection() sorts, and refuses a register a TPM does not have', () => {
  assert.deepEqual(pcrSelection('sha256', [7, 0, 7]), { bank: 'sha256', indexes: [0, 7] })
  for (const index of [-1, 24, 1.5])
    assert.throws(() => pcrSelection('sha256', [index]), RangeError)
})

test('readPcrSelections() reads what writePcrSelection() writes, and bounds banks and registers', () => {
  const selection = pcrSelection('sha384', [0, 7, 23])
  const bytes = writePcrSelection(selection)
  assert.equal(bytes.toHex(), '00000001000c03810080')
  assert.deepEqual(parseWhole(bytes, readPcrSelections), [selection])
  refusesEveryOtherLength(bytes, readPcrSelections)
  assert.throws(
    () => parseWhole(Uint8Array.fromHex('ffffffff'), readPcrSelections),
    /4294967295 banks/,
  )
  const tooMany = Uint8Array.fromHex('00000001000b0400000001')
  assert.throws(() => parseWhole(tooMany, readPcrSelections), /PCR 24/)
})

test('samePcrSelection() tells banks, registers and their number apart', () => {
  const selection = pcrSelection('sha256', [0, 7])
  assert.equal(samePcrSelection(selection, pcrSelection('sha256', [7, 0])), true)
  assert.equal(samePcrSelection(selection, pcrSelection('sha384', [0, 7])), false)
  assert.equal(samePcrSelection(selection, pcrSelection('sha256', [0, 8])), false)
  assert.equal(samePcrSelection(selection, pcrSelection('sha256', [0])), false)
})

test('vendorText() and firmwareText() print as makers do', () => {
  assert.equal(vendorText(0x49465800), 'IFX')
  assert.equal(vendorText(0x00001014), '00001014')
  assert.equal(firmwareText(0x0007005511cb0000n), '7.85.4555.0')
})
