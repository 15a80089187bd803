import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readVectors } from '../../test/support/vectors.ts'
import {
  type CompositeAlgorithm,
  compositeAlgorithms,
  isCompositeSignedBy,
} from './composite-signature.ts'
import { mlDsaParameters } from './ml-dsa.ts'

interface Vectors {
  readonly message: string
  readonly context: string
  readonly tests: readonly {
    readonly name: string
    readonly publicKey: string
    readonly signature: string
    readonly signatureWithContext?: string
  }[]
}

const vectors = readVectors<Vectors>('composite-ml-dsa')
const bytes = (base64: string): Uint8Array => Uint8Array.fromBase64(base64)
const message = bytes(vectors.message)
const experimental = true

for (const vector of vectors.tests) {
  const algorithm = vector.name.replace(/^id-/, '') as CompositeAlgorithm
  const publicKey = bytes(vector.publicKey)
  const signature = bytes(vector.signature)

  test(`isCompositeSignedBy() accepts the draft's vector of ${algorithm}`, () => {
    assert.ok(isCompositeSignedBy(algorithm, { publicKey, message, signature, experimental }))
  })

  test(`isCompositeSignedBy() refuses either half of ${algorithm} being wrong`, () => {
    const { signatureBytes, publicKeyBytes } = mlDsaParameters[compositeAlgorithms[algorithm].mlDsa]
    const flipped = (given: Uint8Array, at: number): Uint8Array => {
      const copy = Uint8Array.from(given)
      copy[at] = (copy[at] ?? 0) ^ 1
      return copy
    }
    const accepts = (changed: { publicKey?: Uint8Array; signature?: Uint8Array }): boolean =>
      isCompositeSignedBy(algorithm, { publicKey, message, signature, experimental, ...changed })
    for (const at of [0, signatureBytes - 1, signatureBytes + 8, signature.length - 1]) {
      assert.ok(!accepts({ signature: flipped(signature, at) }), `a bit of byte ${at}`)
    }
    for (const at of [0, publicKeyBytes, publicKeyBytes + 5]) {
      assert.ok(!accepts({ publicKey: flipped(publicKey, at) }), `a bit of byte ${at} of the key`)
    }
    assert.ok(!accepts({ signature: signature.subarray(0, signatureBytes) }), 'ML-DSA alone')
    assert.ok(!accepts({ signature: signature.subarray(signatureBytes) }), 'ECDSA alone')
    assert.ok(!accepts({ publicKey: publicKey.subarray(0, publicKeyBytes) }), 'no point')
  })
}

test('isCompositeSignedBy() binds the context, the label, and is asked for', () => {
  const [first] = vectors.tests
  assert.ok(first?.signatureWithContext)
  const algorithm = 'MLDSA44-ECDSA-P256-SHA256'
  const signed = {
    publicKey: bytes(first.publicKey),
    message,
    signature: bytes(first.signatureWithContext),
    experimental,
  }
  const context = bytes(vectors.context)
  assert.ok(isCompositeSignedBy(algorithm, { ...signed, context }))
  assert.ok(!isCompositeSignedBy(algorithm, signed))
  assert.ok(!isCompositeSignedBy(algorithm, { ...signed, context: new Uint8Array(256) }))
  assert.throws(
    () => isCompositeSignedBy(algorithm, { ...signed, context, experimental: false }),
    RangeError,
  )
})
