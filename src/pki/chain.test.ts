import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import {
  type CertificateOptions,
  extension,
  type Issued,
  issue,
  newAuthority,
  newIntermediate,
  newSvid,
  nowSeconds,
} from '../../test/support/certificates.ts'
import { type Certificate, extendedKeyUsage, keyUsageBit, parseCertificate } from './certificate.ts'
import { type ChainRefusal, type ChainRequest, verifyChain } from './chain.ts'
import { contextConstructed, contextPrimitive, derNull, sequence } from './der.ts'
import { encodeName } from './name.ts'
import { generateEcKeyPair, generateKeyPair } from './private-key.ts'
import { rsaPublicKeyInfo } from './public-key.ts'

const parsed = (...issued: Issued[]): Certificate[] =>
  issued.map(({ certificate }) => parseCertificate(certificate))

const root = newAuthority('td')
const id = 'spiffe://td/a'

interface Case extends Partial<Pick<ChainRequest, 'nowSeconds' | 'purpose'>> {
  readonly leaf: Issued
  readonly through?: readonly Issued[]
  readonly roots?: readonly Issued[]
}

function verify(chain: Case): Certificate[] {
  const [leaf] = parsed(chain.leaf)
  assert.ok(leaf)
  return verifyChain({
    leaf,
    intermediates: parsed(...(chain.through ?? [])),
    roots: parsed(...(chain.roots ?? [root])),
    nowSeconds: chain.nowSeconds ?? nowSeconds,
    ...(chain.purpose === undefined ? {} : { purpose: chain.purpose }),
  })
}

function refuses(name: string, reason: ChainRefusal, chain: () => Case): void {
  test(`${name.replace(/^([A-K]\d+ )?/, '$1verifyChain() refuses ')}`, () => {
    assert.throws(() => verify(chain()), { name: 'AssayError', code: 'unauthenticated', reason })
  })
}

/** A chain of intermediates below `top`, highest first. */
function below(top: Issued, count: number, options?: CertificateOptions): Issued[] {
  const chain: Issued[] = []
  for (let i = 0; i < count; i++) chain.push(newIntermediate(chain[i - 1] ?? top, 'td', options))
  return chain
}
const lowest = (chain: readonly Issued[]): Issued => chain[chain.length - 1] ?? root

test('verifyChain() gives the path from leaf to root, whatever the order of what it is given', () => {
  const intermediates = below(root, 3)
  const leaf = newSvid(lowest(intermediates), id)
  const unrelated = newIntermediate(newAuthority('other'), 'other')
  const path = verify({
    leaf,
    through: [unrelated, ...intermediates],
    roots: [newAuthority('other'), root],
  })
  assert.deepEqual(
    path.map(({ raw }) => raw),
    [leaf, ...intermediates.toReversed(), root].map(({ certificate }) => certificate),
  )
})

test('verifyChain() takes an intermediate as trust anchor', () => {
  const [anchor] = below(root, 1)
  assert.ok(anchor)
  assert.equal(verify({ leaf: newSvid(anchor, id), roots: [anchor] }).length, 2)
})

test('verifyChain() takes RSA and P-384 authorities', async () => {
  for (const type of ['rsa-2048', 'ec-p384'] as const) {
    const authority = newAuthority('td', { key: await generateKeyPair(type) })
    assert.equal(verify({ leaf: newSvid(authority, id), roots: [authority] }).length, 2)
  }
})

test('verifyChain() finds the root that signed among roots of one name', () => {
  const subject = [{ type: '2.5.4.3', value: 'same' }]
  const roots = Array.from({ length: 4 }, () => newAuthority('td', { subject }))
  for (const authority of roots) {
    for (const authorityKeyId of [undefined, null] as const) {
      const leaf = newSvid(authority, id, authorityKeyId === null ? { authorityKeyId } : {})
      assert.deepEqual(verify({ leaf, roots })[1]?.raw, authority.certificate)
    }
  }
})

test('verifyChain() goes around a cross-certificate that leads nowhere', () => {
  const key = generateEcKeyPair('ec-p256')
  const subject = [{ type: '2.5.4.3', value: 'cross' }]
  const elsewhere = newIntermediate(newAuthority('x'), 'td', { key, subject })
  const expired = newIntermediate(root, 'td', { key, subject, notAfterSeconds: nowSeconds - 1 })
  const good = newIntermediate(root, 'td', { key, subject })
  const leaf = newSvid(good, id)
  const path = verify({ leaf, through: [elsewhere, expired, good] })
  assert.deepEqual(path[1]?.raw, good.certificate)
})

test('verifyChain() counts the first and the last second of a validity', () => {
  const leaf = newSvid(root, id, { notBeforeSeconds: nowSeconds, notAfterSeconds: nowSeconds + 10 })
  assert.ok(verify({ leaf, nowSeconds }))
  assert.ok(verify({ leaf, nowSeconds: nowSeconds + 10.9 }))
})

refuses('B21 an expired leaf', 'certificate-expired', () => ({
  leaf: newSvid(root, id, { notAfterSeconds: nowSeconds - 1 }),
}))
refuses('B21 a leaf that is not yet valid', 'certificate-not-yet-valid', () => ({
  leaf: newSvid(root, id, { notBeforeSeconds: nowSeconds + 1 }),
}))
refuses('B21 an expired intermediate', 'certificate-expired', () => {
  const through = below(root, 1, { notAfterSeconds: nowSeconds - 1 })
  return { leaf: newSvid(lowest(through), id), through }
})
refuses('B21 an expired root', 'certificate-expired', () => {
  const old = newAuthority('td', { notAfterSeconds: nowSeconds - 1 })
  return { leaf: newSvid(old, id), roots: [old] }
})
refuses('B21 an authority it does not know', 'unknown-authority', () => ({
  leaf: newSvid(newAuthority('td'), id),
}))
refuses('any leaf without a root', 'unknown-authority', () => ({
  leaf: newSvid(root, id),
  roots: [],
}))
refuses('a self-signed leaf', 'unknown-authority', () => ({
  leaf: issue(undefined, { uris: [id] }),
}))
refuses('a missing intermediate', 'unknown-authority', () => ({
  leaf: newSvid(lowest(below(root, 1)), id),
}))
refuses('B21 a signature by another key', 'signature-invalid', () => ({
  leaf: newSvid(root, id, { signingKey: generateEcKeyPair('ec-p256').privateKey }),
}))
refuses('a root of the right name and another key', 'signature-invalid', () => {
  const subject = [{ type: '2.5.4.3', value: 'same' }]
  const leaf = newSvid(newAuthority('td', { subject }), id, { authorityKeyId: null })
  return { leaf, roots: [newAuthority('td', { subject })] }
})
refuses('a key identifier that is not the issuer’s', 'unknown-authority', () => ({
  leaf: newSvid(root, id, { authorityKeyId: Uint8Array.of(1, 2, 3) }),
}))
refuses('B21 an issuer that is no CA', 'issuer-not-a-ca', () => {
  const through = below(root, 1, { ca: false })
  return { leaf: newSvid(lowest(through), id), through }
})
refuses('an issuer without basic constraints', 'issuer-not-a-ca', () => {
  const through = below(root, 1, { ca: undefined })
  return { leaf: newSvid(lowest(through), id), through }
})
refuses('a leaf as an issuer', 'issuer-not-a-ca', () => {
  const middle = newSvid(root, id)
  return { leaf: newSvid(middle, id), through: [middle] }
})
refuses('an issuer whose key usage lacks keyCertSign', 'issuer-not-a-ca', () => {
  const through = below(root, 1, { keyUsage: keyUsageBit.cRLSign })
  return { leaf: newSvid(lowest(through), id), through }
})
refuses('a root that is no CA', 'issuer-not-a-ca', () => {
  const anchor = newSvid(root, id)
  return { leaf: newSvid(anchor, id), roots: [anchor] }
})
refuses('B21 one intermediate more than a path length allows', 'path-length-exceeded', () => {
  const authority = newAuthority('td', { pathLength: 1 })
  const through = below(authority, 2)
  return { leaf: newSvid(lowest(through), id), through, roots: [authority] }
})
test('B12 verifyChain() takes as many intermediates as a path length allows', () => {
  const authority = newAuthority('td', { pathLength: 1 })
  const through = below(authority, 1, { pathLength: 0 })
  assert.equal(
    verify({ leaf: newSvid(lowest(through), id), through, roots: [authority] }).length,
    3,
  )
})
refuses('a chain of nine', 'chain-too-long', () => {
  const through = below(root, 7)
  return { leaf: newSvid(lowest(through), id), through }
})
test('verifyChain() takes a chain of eight', () => {
  const through = below(root, 6)
  assert.equal(verify({ leaf: newSvid(lowest(through), id), through }).length, 8)
})
refuses(
  'many look-alikes of an issuer after a bounded number of signatures',
  'signature-invalid',
  () => {
    const subject = [{ type: '2.5.4.3', value: 'same' }]
    const roots = Array.from({ length: 40 }, () => newAuthority('td', { subject }))
    const last = roots[roots.length - 1] ?? root
    return { leaf: newSvid(last, id, { authorityKeyId: null }), roots }
  },
)
refuses('two CAs that issued each other', 'unknown-authority', () => {
  const one = { key: generateEcKeyPair('ec-p256'), name: [{ type: '2.5.4.3', value: 'one' }] }
  const two = { key: generateEcKeyPair('ec-p256'), name: [{ type: '2.5.4.3', value: 'two' }] }
  const first = newAuthority('td', { key: one.key, subject: one.name })
  const second = newIntermediate(first, 'td', { key: two.key, subject: two.name })
  const again = newIntermediate(second, 'td', { key: one.key, subject: one.name })
  return { leaf: newSvid(second, id), through: [second, again] }
})
refuses('an unknown critical extension in the leaf', 'unknown-critical-extension', () => ({
  leaf: newSvid(root, id, { extensions: [extension('1.2.3', true, derNull())] }),
}))
refuses('an unknown critical extension in an issuer', 'unknown-critical-extension', () => {
  const through = below(root, 1, { extensions: [extension('2.5.29.36', true, sequence())] })
  return { leaf: newSvid(lowest(through), id), through }
})
test('verifyChain() passes over an unknown extension that is not critical', () => {
  assert.ok(
    verify({ leaf: newSvid(root, id, { extensions: [extension('1.2.3', false, derNull())] }) }),
  )
})
refuses('an RSA key of 1024 bits', 'key-not-allowed', () => {
  const publicKey = rsaPublicKeyInfo(new Uint8Array(128).fill(0xff), Uint8Array.of(1, 0, 1))
  return { leaf: newSvid(root, id, { key: { publicKey, privateKey: root.key.privateKey } }) }
})

test('verifyChain() holds leaf and intermediates to a purpose', () => {
  const purpose = extendedKeyUsage.clientAuth
  assert.ok(verify({ leaf: newSvid(root, id), purpose }))
  assert.ok(verify({ leaf: newSvid(root, id, { usages: [extendedKeyUsage.any] }), purpose }))
  assert.ok(verify({ leaf: issue(root, { uris: [id] }), purpose }))
  const refusal = { reason: 'purpose-not-allowed' }
  const server = newSvid(root, id, { usages: [extendedKeyUsage.serverAuth] })
  assert.throws(() => verify({ leaf: server, purpose }), refusal)
  const through = below(root, 1, { usages: [extendedKeyUsage.serverAuth] })
  assert.throws(() => verify({ leaf: newSvid(lowest(through), id), through, purpose }), refusal)
})

const uri = (constraint: string): Uint8Array => sequence(contextPrimitive(6, utf8Bytes(constraint)))
const dns = (constraint: string): Uint8Array => sequence(contextPrimitive(2, utf8Bytes(constraint)))
const constrained = (value: Uint8Array, critical = true): Issued =>
  newAuthority('td', { extensions: [extension('2.5.29.30', critical, value)] })
const permitted = (...subtrees: Uint8Array[]): Uint8Array =>
  sequence(contextConstructed(0, ...subtrees))
const excluded = (...subtrees: Uint8Array[]): Uint8Array =>
  sequence(contextConstructed(1, ...subtrees))

for (const [name, constraints, leafId, dnsNames, allowed] of [
  ['the permitted host', permitted(uri('td')), id, [], true],
  ['another host', permitted(uri('other')), id, [], false],
  ['a host below the permitted one', permitted(uri('td')), 'spiffe://sub.td/a', [], false],
  ['a host below a dotted constraint', permitted(uri('.td')), 'spiffe://sub.td/a', [], true],
  ['the host of a dotted constraint itself', permitted(uri('.td')), id, [], false],
  ['one of two permitted hosts', permitted(uri('x'), uri('TD')), id, [], true],
  ['an excluded host', excluded(uri('td')), id, [], false],
  ['a host that is not excluded', excluded(uri('other')), id, [], true],
  [
    'a host both permitted and excluded',
    sequence(contextConstructed(0, uri('td')), contextConstructed(1, uri('td'))),
    id,
    [],
    false,
  ],
  ['a DNS name below the permitted one', permitted(dns('a.b')), id, ['x.a.b'], true],
  ['a DNS name beside the permitted one', permitted(dns('a.b')), id, ['xa.b'], false],
  ['an excluded DNS name', excluded(dns('a.b')), id, ['A.B'], false],
  ['a constraint on names that are not there', permitted(dns('a.b')), id, [], true],
] as const) {
  test(`B13 verifyChain() ${allowed ? 'accepts' : 'refuses'} ${name} under name constraints`, () => {
    const authority = constrained(constraints)
    const leaf = newSvid(authority, leafId, { dnsNames })
    const run = () => verify({ leaf, roots: [authority] })
    if (allowed) assert.ok(run())
    else assert.throws(run, { reason: 'name-constraint-violated' })
  })
}

test('B13 verifyChain() applies the constraints of a CA to the CAs below it', () => {
  const authority = constrained(permitted(uri('td')))
  const inside = newIntermediate(authority, 'td')
  const outside = newIntermediate(authority, 'other')
  assert.ok(verify({ leaf: newSvid(inside, id), through: [inside], roots: [authority] }))
  const through = [outside]
  assert.throws(() => verify({ leaf: newSvid(outside, id), through, roots: [authority] }), {
    reason: 'name-constraint-violated',
  })
})

test('B13 verifyChain() fails closed on constraints it does not evaluate or cannot read', () => {
  const directory = sequence(contextConstructed(4, encodeName([{ type: '2.5.4.6', value: 'US' }])))
  const withMinimum = sequence(
    contextPrimitive(6, utf8Bytes('td')),
    contextPrimitive(0, Uint8Array.of(1)),
  )
  for (const constraints of [permitted(directory), permitted(withMinimum), derNull()]) {
    for (const critical of [true, false]) {
      const authority = constrained(constraints, critical)
      assert.throws(() => verify({ leaf: newSvid(authority, id), roots: [authority] }), {
        reason: 'name-constraint-violated',
      })
    }
  }
  const authority = constrained(permitted(directory))
  const leaf = newSvid(authority, id, { subject: [] })
  assert.ok(
    verify({ leaf, roots: [authority] }),
    'a kind of name that is not there is not constrained',
  )
})
