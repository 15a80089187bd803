import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import { newAuthority, newSvid, nowSeconds } from '../../test/support/certificates.ts'
import {
  newHybridAuthority,
  newHybridIntermediate,
  newHybridSvid,
} from '../../test/support/hybrid-certificates.ts'
import { pqAttacks } from '../../test/support/pq-attacks.ts'
import { certificateWords } from './certificate-words.ts'
import { verifyCertificate } from './verify-certificates.ts'

test('verifyCertificate() verifies both signatures of a leaf, of an intermediate, and of the authority itself', () => {
  const root = newHybridAuthority('example.org')
  const middle = newHybridIntermediate(root, 'example.org')
  const leaf = newHybridSvid(middle, 'spiffe://example.org/web')
  const [a, b, c] = [leaf, middle, root].map(({ certificate }) => parseCertificate(certificate))
  assert.ok(a && b && c)
  for (const certificate of [a, b, c]) {
    const { classical, pq, detail } = verifyCertificate(certificate, {
      others: [a, b].filter((other) => other !== certificate),
      authorities: [c],
      nowSeconds,
    })
    assert.deepEqual([classical, pq, detail], ['verified', 'verified', ''])
  }
})

test('verifyCertificate() tells what is refused classically from what is not by the right ML-DSA key', () => {
  for (const [name, attack] of Object.entries(pqAttacks)) {
    const { chain, anchor, pq, classicallyValid } = attack()
    const [leaf, ...others] = chain.map((der) => parseCertificate(der))
    assert.ok(leaf)
    const authorities = [parseCertificate(anchor)]
    const verdict = verifyCertificate(leaf, { others, authorities, nowSeconds })
    const expected = classicallyValid ? ['verified', pq] : ['refused', undefined]
    assert.deepEqual([verdict.classical, verdict.pq], expected, name)
  }
})

test('certificateWords() names keys, signatures and extensions, and does not fall over one it cannot read', () => {
  const root = newHybridAuthority('example.org', 'ml-dsa-87')
  const words = certificateWords(parseCertificate(root.certificate))
  assert.deepEqual([words.pqKey, words.pqSignature, words.key], ['ml-dsa-87', 'ml-dsa-87', 'P-256'])
  assert.deepEqual(
    words.extensions.slice(-3).map(({ name, critical }) => [name, critical]),
    [
      ['subject alternative public key', false],
      ['alternative signature algorithm', false],
      ['alternative signature value', false],
    ],
  )
  const { chain } = pqAttacks['the algorithm is left out']?.() ?? assert.fail()
  const damaged = certificateWords(parseCertificate(chain[0] as Uint8Array))
  assert.match(damaged.pqSignature, /^cannot be read: it has the value/)
  const classical = newSvid(newAuthority('example.org'), 'spiffe://example.org/web')
  assert.equal(certificateWords(parseCertificate(classical.certificate)).pqKey, 'none')
})
