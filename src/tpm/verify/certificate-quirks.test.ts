import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bitString, derNull, derTag, oid, sequence, tlv, utf8String } from '#pki/der.ts'
import { publicKeyBits, rsaPublicKeyInfo } from '#pki/public-key.ts'
import { intermediateCertificate, maker } from '../../../test/support/endorsement-maker.ts'
import {
  type CertificateQuirk,
  isSameKey,
  isSameName,
  parseQuirkyCertificate,
} from './certificate-quirks.ts'

const rdn = (...parts: Uint8Array[]): Uint8Array => tlv(derTag.set, ...parts)
const attribute = (type: string, value: string): Uint8Array =>
  sequence(oid(type), utf8String(value))
const country = attribute('2.5.4.6', 'US')
const maker1 = attribute('2.5.4.10', 'Maker')

test('isSameName() accepts another order within an RDN as a quirk, and nothing else', () => {
  const seen = new Set<CertificateQuirk>()
  const name = sequence(rdn(country, maker1))
  assert.equal(isSameName(name, name, seen), true)
  assert.deepEqual([...seen], [])
  assert.equal(isSameName(name, sequence(rdn(maker1, country)), seen), true)
  assert.deepEqual([...seen], ['issuer-name-order'])
  seen.clear()
  assert.equal(isSameName(name, sequence(rdn(country), rdn(maker1)), seen), false)
  assert.equal(
    isSameName(sequence(rdn(country), rdn(maker1)), sequence(rdn(maker1), rdn(country)), seen),
    false,
  )
  assert.deepEqual([...seen], [])
})

test('isSameKey() accepts a key labelled for OAEP as a quirk, and no other key or label', () => {
  const seen = new Set<CertificateQuirk>()
  const modulus = new Uint8Array(256).fill(0xc1)
  const plain = rsaPublicKeyInfo(modulus, Uint8Array.of(1, 0, 1))
  const labelled = (algorithm: string) =>
    sequence(sequence(oid(algorithm), derNull()), bitString(publicKeyBits(plain)))
  assert.equal(isSameKey(plain, plain, seen), true)
  assert.deepEqual([...seen], [])
  assert.equal(isSameKey(labelled('1.2.840.113549.1.1.7'), plain, seen), true)
  assert.deepEqual([...seen], ['rsa-oaep-key'])
  assert.equal(isSameKey(labelled('1.2.840.113549.1.1.10'), plain, seen), false)
  const other = rsaPublicKeyInfo(modulus.with(200, 1), Uint8Array.of(1, 0, 1))
  assert.equal(isSameKey(other, plain, seen), false)
})

test('parseQuirkyCertificate() notes lenient reading, and refuses trailing bytes and 8 KiB', () => {
  const seen = new Set<CertificateQuirk>()
  parseQuirkyCertificate(maker.rootCertificate, seen)
  assert.deepEqual([...seen], [])
  parseQuirkyCertificate(intermediateCertificate({ serial: Uint8Array.of(0, 0, 1) }), seen)
  assert.deepEqual([...seen], ['der-encoding'])
  const trailing = Uint8Array.of(...maker.rootCertificate, 0)
  assert.throws(() => parseQuirkyCertificate(trailing, seen), SyntaxError)
  assert.throws(() => parseQuirkyCertificate(new Uint8Array(8193), seen), RangeError)
})

test('parseQuirkyCertificate() throws nothing but SyntaxError and RangeError, whatever bit flips', () => {
  const certificate = maker.rootCertificate
  for (let bit = 0; bit < certificate.length * 8; bit += 3) {
    const changed = certificate.with(bit >> 3, (certificate[bit >> 3] ?? 0) ^ (1 << (bit & 7)))
    try {
      parseQuirkyCertificate(changed, new Set())
    } catch (error) {
      assert.ok(error instanceof SyntaxError || error instanceof RangeError, String(error))
    }
  }
})
