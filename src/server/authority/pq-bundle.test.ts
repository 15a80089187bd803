import assert from 'node:assert/strict'
import { test } from 'node:test'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { generateMlDsaKeyPair } from '#pq-crypto/ml-dsa.ts'
import { encodePqBundle, parsePqBundle, pqBundle } from '#spiffe/pq-bundle.ts'
import { isPqHint } from '#spiffe/pq-hint.ts'
import {
  authorityOptions,
  newAlternativeKeysInMemory,
  newMemoryKeyManager,
  trustDomain,
  withAlternativeKeys,
} from '../../../test/support/authorities.ts'
import { AuthorityManager } from './authority-manager.ts'

const options = authorityOptions({
  pqParameterSet: 'ml-dsa-44',
  keyManager: withAlternativeKeys(newMemoryKeyManager(), {
    alternatives: newAlternativeKeysInMemory(),
    parameterSet: 'ml-dsa-44',
  }),
})
using manager = await AuthorityManager.open(options)
assert.ok(manager)
const own = await options.datastore.bundle(trustDomain)
assert.ok(own)
const bundle = pqBundle(own)
const document = encodePqBundle(bundle)

interface Jwk {
  [name: string]: unknown
}

/** The bundle read from the document with its keys changed, and why keys were passed over. */
function read(change: (keys: Jwk[]) => readonly Jwk[]) {
  const root = JSON.parse(document)
  const why: string[] = []
  const text = JSON.stringify({ ...root, keys: change(root.keys) })
  const found = parsePqBundle(text, trustDomain, { onIgnoredKey: (_, said) => why.push(said) })
  return { x509: found.x509Authorities.length, jwt: found.jwtAuthorities.length, why }
}

test('parsePqBundle() reads what encodePqBundle() writes', () => {
  const found = parsePqBundle(document, trustDomain)
  assert.deepEqual(found.x509Authorities, bundle.x509Authorities)
  assert.deepEqual(
    found.jwtAuthorities,
    bundle.jwtAuthorities.map((authority) => ({ ...authority, expiresAtSeconds: 0 })),
  )
  assert.equal(found.sequenceNumber, own.sequenceNumber)
  assert.deepEqual(
    read((keys) => keys),
    { x509: 1, jwt: 1, why: [] },
  )
})

test('parsePqBundle() passes over keys that are not ML-DSA, or not what they say', async () => {
  const { publicKey } = await generateMlDsaKeyPair('ml-dsa-44')
  const other = publicKey.subarray(-1312).toBase64({ alphabet: 'base64url', omitPadding: true })
  const changed =
    (change: Jwk) =>
    (keys: Jwk[]): Jwk[] =>
      keys.map((key) => ({ ...key, ...change }))
  for (const [change, why] of [
    [{ kty: 'EC' }, /EC/],
    [{ alg: 'ML-DSA-65' }, /1952|another key/],
    [{ alg: 'ES256' }, /not ML-DSA/],
    [{ alg: undefined }, /not ML-DSA/],
    [{ pub: 'AAAA' }, /1312/],
    [{ pub: '!' }, /./],
    [{ use: 'sig' }, /use/],
  ] as const) {
    const found = read(changed(change))
    assert.deepEqual([found.x509, found.jwt], [0, 0], JSON.stringify(change))
    for (const said of found.why) assert.match(said, why)
  }
  // A certificate of another key than the one beside it; a token's key alone says all there is.
  assert.deepEqual(read(changed({ pub: other })), {
    x509: 0,
    jwt: 1,
    why: ['its certificate is of another key'],
  })
  const { publicKey: classical } = generateEcKeyPair('ec-p256')
  assert.throws(
    () =>
      encodePqBundle({
        ...bundle,
        jwtAuthorities: [
          {
            ...own.jwtAuthorities[0],
            publicKey: classical,
            keyId: 'a',
            expiresAtSeconds: 0,
            tainted: false,
          },
        ],
      }),
    RangeError,
  )
})

test('parsePqBundle() refuses every truncation of a document', () => {
  for (let length = 0; length < document.length; length += 1) {
    assert.throws(() => parsePqBundle(document.slice(0, length), trustDomain), SyntaxError)
  }
})

test('isPqHint() takes pq, and pq with a name', () => {
  assert.deepEqual(['pq', 'pq:', 'pq:db', '', 'PQ', 'pqx', 'x:pq', ' pq'].filter(isPqHint), [
    'pq',
    'pq:',
    'pq:db',
  ])
})
