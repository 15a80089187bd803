import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import {
  type CaKey,
  caCertificate,
  intermediateCertificate,
  maker,
  newCaKey,
} from '../../../test/support/endorsement-maker.ts'
import { parseEndorsementAuthorities, verifyEndorsementChain } from './endorsement-authorities.ts'

interface Ca {
  readonly name: string
  readonly key: CaKey
}

const root: Ca = { name: maker.rootName, key: maker.root }
const issue = (issuer: Ca, subject: Ca): Uint8Array =>
  caCertificate({
    subject: subject.name,
    publicKey: subject.key.publicKey,
    issuer: issuer.name,
    signingKey: issuer.key.privateKey,
  })

/** A chain of `length` CAs below the root, the last first. */
function chainOf(length: number): Uint8Array[] {
  const cas = Array.from({ length }, (_, at) => ({ name: `CA ${at}`, key: newCaKey() }))
  return cas.map((ca, at) => issue(cas[at - 1] ?? root, ca)).reverse()
}

function verify(chain: readonly Uint8Array[], anchors: readonly Uint8Array[]): void {
  const [first, ...intermediates] = chain.map((der) => parseCertificate(der))
  assert.ok(first)
  const authorities = parseEndorsementAuthorities(anchors)
  verifyEndorsementChain(
    first,
    { authorities, intermediates, validAtSeconds: undefined },
    new Set(),
  )
}

test('verifyEndorsementChain() goes through three intermediates and no more', () => {
  for (const length of [1, 2, 3, 4]) verify(chainOf(length), [maker.rootCertificate])
  assert.throws(() => verify(chainOf(5), [maker.rootCertificate]), {
    reason: 'endorsement-issuer-unknown',
  })
})

test('verifyEndorsementChain() takes the anchor that signed among several of one name', () => {
  const other = newCaKey()
  const namesake = caCertificate({ publicKey: other.publicKey, signingKey: other.privateKey })
  verify([intermediateCertificate()], [namesake, maker.rootCertificate])
  assert.throws(() => verify([intermediateCertificate()], [namesake]), {
    reason: 'endorsement-issuer-signature',
  })
})

test('verifyEndorsementChain() trusts an installed intermediate without its root', () => {
  const [leaf = new Uint8Array(0), intermediate = new Uint8Array(0)] = chainOf(2)
  verify([leaf], [intermediate])
})

test('verifyEndorsementChain() bounds the signatures it checks, whatever certificates it is sent', () => {
  const namesakes = Array.from({ length: 7 }, () => {
    const key = newCaKey()
    return caCertificate({ publicKey: key.publicKey, signingKey: key.privateKey })
  })
  const other = newCaKey()
  const anchor = caCertificate({ subject: 'Other', publicKey: other.publicKey })
  const begun = process.cpuUsage()
  assert.throws(() => verify([intermediateCertificate(), ...namesakes], [anchor]))
  const { user } = process.cpuUsage(begun)
  assert.ok(user < 500_000, `${user} µs`)
})

test('parseEndorsementAuthorities() says which certificate it cannot read', () => {
  assert.throws(
    () => parseEndorsementAuthorities([maker.rootCertificate, new Uint8Array(3)]),
    /cannot read endorsement authority 2/,
  )
})
