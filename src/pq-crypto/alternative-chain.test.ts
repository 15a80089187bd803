import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { type Certificate, parseCertificate } from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import { type Issued, newAuthority, newSvid, nowSeconds } from '../../test/support/certificates.ts'
import {
  newHybridAuthority,
  newHybridIntermediate,
  newHybridSvid,
} from '../../test/support/hybrid-certificates.ts'
import { doubledExtension, pqAttacks } from '../../test/support/pq-attacks.ts'
import { judgeAlternativeSignatures, verifyAlternativeSignatures } from './alternative-chain.ts'
import { mlDsaParameterSets } from './ml-dsa.ts'

const id = 'spiffe://example.org/web'
const parsed = (issued: Issued): Certificate => parseCertificate(issued.certificate)

function refusal(work: () => unknown): AssayError {
  try {
    work()
  } catch (error) {
    assert.ok(error instanceof AssayError, String(error))
    return error
  }
  return assert.fail('it was accepted')
}

for (const parameterSet of mlDsaParameterSets) {
  test(`verifyAlternativeSignatures() accepts a leaf below its authority (${parameterSet})`, () => {
    const authority = newHybridAuthority('example.org', parameterSet)
    const chain = [newHybridSvid(authority, id), authority].map(parsed)
    const anchors = [parsed(authority)]
    for (const policy of ['prefer', 'require'] as const) {
      assert.deepEqual(verifyAlternativeSignatures(chain, { anchors, policy }), {
        pq: 'verified',
        parameterSet,
        detail: '',
      })
    }
    const [leaf] = chain as [Certificate, Certificate]
    // Whoever knows nothing of these extensions verifies the rest as ever.
    assert.equal(verifyChain({ leaf, intermediates: [], roots: anchors, nowSeconds }).length, 2)
  })
}

test('verifyAlternativeSignatures() follows the keys of intermediates, of other parameter sets too', () => {
  const authority = newHybridAuthority('example.org', 'ml-dsa-65')
  const upper = newHybridIntermediate(authority, 'example.org', 'ml-dsa-87')
  const lower = newHybridIntermediate(upper, 'example.org', 'ml-dsa-44')
  const chain = [newHybridSvid(lower, id), lower, upper, authority].map(parsed)
  const anchors = [parsed(authority)]
  const { pq, parameterSet } = verifyAlternativeSignatures(chain, { anchors, policy: 'require' })
  assert.deepEqual([pq, parameterSet], ['verified', 'ml-dsa-65'])
})

test('verifyAlternativeSignatures() takes an anchor by itself', () => {
  const anchor = parsed(newHybridAuthority('example.org'))
  assert.equal(
    verifyAlternativeSignatures([anchor], { anchors: [anchor], policy: 'require' }).pq,
    'verified',
  )
})

test('verifyAlternativeSignatures() under prefer accepts what has no signature, and says so', () => {
  const old = newAuthority('example.org')
  const authority = newHybridAuthority('example.org')
  for (const issuer of [old, authority]) {
    const chain = [newSvid(issuer, id), issuer].map(parsed)
    const anchors = [old, authority].map(parsed)
    assert.equal(verifyAlternativeSignatures(chain, { anchors, policy: 'prefer' }).pq, 'absent')
    assert.equal(
      refusal(() => verifyAlternativeSignatures(chain, { anchors, policy: 'require' })).reason,
      'pq-signature-absent',
    )
  }
})

test('verifyAlternativeSignatures() wants the chain to end in an anchor, to the byte', () => {
  const authority = newHybridAuthority('example.org')
  const other = newHybridAuthority('example.org')
  const chain = [newHybridSvid(authority, id), authority].map(parsed)
  const verify = (certificates: readonly Certificate[]) => () =>
    verifyAlternativeSignatures(certificates, { anchors: [parsed(other)], policy: 'require' })
  assert.equal(refusal(verify(chain)).reason, 'unknown-authority')
  assert.equal(refusal(verify([])).reason, 'unknown-authority')
})

for (const [name, attack] of Object.entries(pqAttacks)) {
  test(`verifyAlternativeSignatures() refuses: ${name}`, () => {
    const { chain, anchor, pq, why, classicallyValid } = attack()
    const certificates = chain.map((der) => parseCertificate(der))
    const root = parseCertificate(anchor)
    const path = [...certificates, root]
    const finding = judgeAlternativeSignatures(path)
    assert.equal(finding.pq, pq)
    assert.match(finding.detail, why)
    const anchors = [root]
    const error = refusal(() => verifyAlternativeSignatures(path, { anchors, policy: 'require' }))
    assert.deepEqual([error.code, error.reason], ['unauthenticated', `pq-signature-${pq}`])
    const prefer = () => verifyAlternativeSignatures(path, { anchors, policy: 'prefer' })
    if (pq === 'invalid') assert.equal(refusal(prefer).reason, 'pq-signature-invalid')
    else assert.equal(prefer().pq, 'absent')

    const [leaf, ...intermediates] = certificates as [Certificate, ...Certificate[]]
    const classical = () => verifyChain({ leaf, intermediates, roots: anchors, nowSeconds })
    if (classicallyValid) assert.equal(classical().length, path.length)
    else assert.equal(refusal(classical).reason, 'unknown-critical-extension')
  })
}

for (const extension of ['key', 'algorithm', 'value'] as const) {
  test(`an extension that is there twice is refused by the parser (${extension})`, () => {
    const { chain, why } = doubledExtension(extension)
    assert.throws(() => parseCertificate(chain[0] as Uint8Array), why)
  })
}
