import assert from 'node:assert/strict'
import { chmod, rm, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { keyUsageBit } from '#pki/certificate.ts'
import { contextConstructed, contextPrimitive, sequence } from '#pki/der.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import {
  extension,
  type Issued,
  newAuthority,
  newIntermediate,
  newSvid,
  nowSeconds,
} from '../../../../test/support/certificates.ts'
import { newUpstreamFolder } from '../../../../test/support/upstream.ts'

interface Case {
  /** What is signed with, first, and what is above it. */
  readonly chain: readonly [Issued, ...Issued[]]
  readonly roots: readonly Issued[]
}

const root = newAuthority('example.org')
const ca = newIntermediate(root, 'example.org')

async function read({ chain: [first, ...above], roots }: Case) {
  await using folder = await newUpstreamFolder()
  await folder.write(first, above, roots)
  return await folder.open(new FakeClock()).current()
}

const accepted: readonly (readonly [string, () => Case])[] = [
  ['a root', () => ({ chain: [root], roots: [root] })],
  ['an intermediate', () => ({ chain: [ca], roots: [root] })],
  [
    'a chain in any order after its first',
    () => {
      const second = newIntermediate(ca, 'example.org')
      return { chain: [newIntermediate(second, 'example.org'), ca, second], roots: [root] }
    },
  ],
  [
    'CAs without a SPIFFE ID',
    () => {
      const plain = newAuthority('example.org', { uris: [] })
      return { chain: [newIntermediate(plain, 'x', { uris: ['http://ca.test/'] })], roots: [plain] }
    },
  ],
  [
    'path lengths that leave room',
    () => {
      const top = newAuthority('example.org', { pathLength: 2 })
      return { chain: [newIntermediate(top, 'example.org', { pathLength: 1 })], roots: [top] }
    },
  ],
]
for (const [what, make] of accepted) {
  test(`an upstream authority may be ${what}`, async () => {
    const { chain, roots } = make()
    const { path } = await read({ chain, roots })
    assert.deepEqual(path[0]?.raw, chain[0].certificate)
    assert.deepEqual(path.at(-1)?.raw, roots[0]?.certificate)
  })
}

const uriConstraint = (kind: 0 | 1, host: string): Uint8Array =>
  extension(
    '2.5.29.30',
    true,
    sequence(contextConstructed(kind, sequence(contextPrimitive(6, utf8Bytes(host))))),
  )

const refused: readonly (readonly [string, RegExp, () => Case])[] = [
  [
    'no CA',
    /is not a CA/,
    () => ({ chain: [newSvid(root, 'spiffe://example.org/a')], roots: [root] }),
  ],
  [
    'a root that is no CA',
    /is not a CA/,
    () => ({ chain: [ca], roots: [root, newAuthority('example.org', { ca: false })] }),
  ],
  [
    'a CA that may not sign certificates',
    /keyCertSign/,
    () => ({
      chain: [newIntermediate(root, 'example.org', { keyUsage: keyUsageBit.cRLSign })],
      roots: [root],
    }),
  ],
  [
    'a CA without key usage',
    /keyCertSign/,
    () => ({
      chain: [newIntermediate(root, 'example.org', { keyUsage: undefined })],
      roots: [root],
    }),
  ],
  [
    'a CA of another root',
    /no trusted authority/,
    () => ({
      chain: [ca],
      roots: [newAuthority('example.org')],
    }),
  ],
  [
    'an expired CA',
    /it ended at/,
    () => ({
      chain: [newIntermediate(root, 'example.org', { notAfterSeconds: nowSeconds - 1 })],
      roots: [root],
    }),
  ],
  [
    'an expired root',
    /no trusted authority|it ended at/,
    () => {
      const old = newAuthority('example.org', { notAfterSeconds: nowSeconds - 1 })
      return { chain: [newIntermediate(old, 'example.org')], roots: [old] }
    },
  ],
  [
    'a path length that leaves no room',
    /allows 0/,
    () => ({ chain: [newIntermediate(root, 'example.org', { pathLength: 0 })], roots: [root] }),
  ],
  [
    'a path length above it that leaves no room',
    /allows 1/,
    () => {
      const top = newAuthority('example.org', { pathLength: 1 })
      return { chain: [newIntermediate(top, 'example.org')], roots: [top] }
    },
  ],
  [
    'a root whose own path length leaves no room',
    /allows 0/,
    () => {
      const top = newAuthority('example.org', { pathLength: 0 })
      return { chain: [top], roots: [top] }
    },
  ],
  [
    'a CA of another trust domain (B9)',
    /spiffe:\/\/example\.com: a CA above this server has spiffe:\/\/example\.org/,
    () => ({ chain: [newIntermediate(root, 'example.com')], roots: [root] }),
  ],
  [
    'a root of another trust domain',
    /a CA above this server/,
    () => {
      const other = newAuthority('example.com')
      return { chain: [newIntermediate(other, 'example.org')], roots: [other] }
    },
  ],
  [
    'a CA whose SPIFFE ID has a path (B8)',
    /a CA above this server/,
    () => ({
      chain: [newIntermediate(root, 'x', { uris: ['spiffe://example.org/ca'] })],
      roots: [root],
    }),
  ],
  [
    'a CA with a second URI',
    /a CA above this server/,
    () => ({
      chain: [newIntermediate(root, 'x', { uris: ['spiffe://example.org', 'http://x.test/'] })],
      roots: [root],
    }),
  ],
  [
    'a CA for other names (B13)',
    /name constraints/,
    () => ({
      chain: [
        newIntermediate(root, 'x', { uris: [], extensions: [uriConstraint(0, 'example.com')] }),
      ],
      roots: [root],
    }),
  ],
  [
    'a root that excludes the trust domain',
    /name constraints/,
    () => {
      const top = newAuthority('x', { uris: [], extensions: [uriConstraint(1, 'example.org')] })
      return { chain: [newIntermediate(top, 'x', { uris: [] })], roots: [top] }
    },
  ],
  [
    'a CA that does not name its issuer’s key',
    /no authority key identifier/,
    () => ({
      chain: [newIntermediate(root, 'example.org', { authorityKeyId: null })],
      roots: [root],
    }),
  ],
]
for (const [what, why, make] of refused) {
  test(`an upstream authority is not ${what}`, async () => {
    await assert.rejects(read(make()), {
      code: 'failed-precondition',
      reason: 'upstream-unusable',
      message: why,
    })
  })
}

test('an upstream authority must have its own key, readable by its owner alone', async () => {
  await using folder = await newUpstreamFolder()
  await folder.write(ca, [], [root])
  const upstream = folder.open(new FakeClock())
  await chmod(folder.keyFilePath, 0o644)
  await assert.rejects(upstream.current(), { reason: 'secret-file-not-private' })
  await chmod(folder.keyFilePath, 0o600)
  const other = generateEcKeyPair('ec-p256').privateKey.export({ type: 'pkcs8', format: 'pem' })
  await writeFile(folder.keyFilePath, other)
  await assert.rejects(upstream.current(), { message: /it is not the key of/ })
  await writeFile(folder.keyFilePath, 'secret words')
  await assert.rejects(upstream.current(), (error: Error) => {
    assert.match(error.message, /it is no private key in PEM/)
    assert.ok(!error.message.includes('secret'))
    return true
  })
  for (const path of [folder.certFilePath, folder.bundleFilePath]) {
    await folder.write(ca, [], [root])
    await writeFile(path, 'no certificate')
    await assert.rejects(upstream.current(), { message: new RegExp(`${path}: it holds no CERT`) })
    await rm(path)
    await assert.rejects(upstream.current(), { message: new RegExp(path) })
  }
})
