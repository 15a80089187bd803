import assert from 'node:assert/strict'
import { test } from 'node:test'
import { equalBytes } from '#base/bytes.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { children, type DerElement, readElement, readNested } from '#pki/der.ts'
import { newAuthority, newSvid } from '../../test/support/certificates.ts'
import { newHybridAuthority, newHybridSvid, pqKey } from '../../test/support/hybrid-certificates.ts'
import {
  alternativeMessage,
  alternativeOid,
  altPublicKey,
  altSignature,
  isAltSignedBy,
  withAltSignature,
} from './alternative-signature.ts'
import { parseMlDsaPublicKey } from './ml-dsa.ts'

const authority = newHybridAuthority('example.org')
const leaf = newHybridSvid(authority, 'spiffe://example.org/web')

test('alternativeMessage() is the certificate without signature algorithm and alternative signature', () => {
  const { tbs } = parseCertificate(leaf.certificate)
  const message = alternativeMessage(tbs)
  const whole = children(readElement(tbs))
  const kept = children(readElement(message))
  assert.deepEqual(
    kept.slice(0, -1).map(({ raw }) => raw),
    whole
      .filter((_field, index) => index !== 2)
      .slice(0, -1)
      .map(({ raw }) => raw),
  )
  const list = (field: DerElement | undefined): Uint8Array[] =>
    children(readNested(field as DerElement)).map(({ raw }) => raw)
  assert.deepEqual(list(kept.at(-1)), list(whole.at(-1)).slice(0, -1))
})

test('alternativeMessage() is the same before and after the alternative signature is added', () => {
  const { tbs } = parseCertificate(newSvid(authority, 'spiffe://example.org/web').certificate)
  const signed = withAltSignature(tbs, new Uint8Array(2420))
  assert.deepEqual(alternativeMessage(signed), alternativeMessage(tbs))
  const last = children(readNested(children(readElement(signed)).at(-1) as DerElement)).at(-1)
  assert.equal(last?.raw.toHex().includes('0603551d4a'), true)
})

test('alternativeMessage() refuses what is no certificate of version 3, and every truncation', () => {
  const { tbs } = parseCertificate(leaf.certificate)
  for (let length = 0; length < tbs.length; length++) {
    assert.throws(() => alternativeMessage(tbs.slice(0, length)), SyntaxError)
  }
  assert.throws(() => alternativeMessage(readElement(tbs).content), SyntaxError)
})

test('altSignature() and altPublicKey() read what a hybrid certificate carries, and nothing elsewhere', () => {
  const ca = parseCertificate(authority.certificate)
  const key = altPublicKey(ca)
  assert.equal(key?.parameterSet, 'ml-dsa-44')
  assert.equal(altSignature(ca)?.value.length, 2420)
  const certificate = parseCertificate(leaf.certificate)
  assert.equal(altPublicKey(certificate), undefined)
  const signature = altSignature(certificate)
  assert.ok(key && signature && isAltSignedBy(certificate, signature, key))
  assert.ok(
    !isAltSignedBy(certificate, signature, parseMlDsaPublicKey(pqKey('ml-dsa-44', 99).publicKey)),
  )
  const classical = parseCertificate(newAuthority('example.org').certificate)
  assert.deepEqual([altPublicKey(classical), altSignature(classical)], [undefined, undefined])
})

test('a bit that is another, anywhere in a hybrid certificate, is refused', () => {
  const key = parseMlDsaPublicKey(authority.pq.publicKey)
  const certificate = parseCertificate(leaf.certificate)
  // The classical signature and its algorithm, which stand after what is signed, are its own verifier's business.
  const end = certificate.raw.length - certificate.signature.length - 20
  const algorithm = certificate.raw.toHex().indexOf('300a06082a8648ce3d040302') / 2
  let parsed = 0
  for (let at = 0; at < end; at++) {
    if (at >= algorithm && at < algorithm + 12) continue
    const flipped = Uint8Array.from(certificate.raw)
    flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8))
    let judged: boolean
    try {
      const read = parseCertificate(flipped)
      if (!equalBytes(read.raw, flipped)) continue
      const signature = altSignature(read)
      judged = signature !== undefined && isAltSignedBy(read, signature, key)
      parsed++
    } catch (error) {
      assert.ok(error instanceof SyntaxError || error instanceof RangeError, `byte ${at}: ${error}`)
      continue
    }
    assert.equal(judged, false, `a bit of byte ${at}`)
  }
  assert.ok(parsed > 2500, `only ${parsed} were still certificates`)
})

test('the identifiers are those of X.509', () => {
  assert.deepEqual(Object.values(alternativeOid), ['2.5.29.72', '2.5.29.73', '2.5.29.74'])
})
