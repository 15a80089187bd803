import 'reflect-metadata'
import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject, sign, webcrypto } from 'node:crypto'
import { test } from 'node:test'
import * as x509 from '@peculiar/x509'
import { mutated, seeded } from '../../test/support/seeded.ts'
import { createCsr, parseCsr, verifyCsr } from './csr.ts'
import {
  bitString,
  contextConstructed,
  contextPrimitive,
  integer,
  octetString,
  oid,
  sequence,
  set,
} from './der.ts'
import { generateEcKeyPair } from './private-key.ts'

function keys(pair: { publicKey: KeyObject; privateKey: KeyObject }) {
  const publicKey = new Uint8Array(pair.publicKey.export({ format: 'der', type: 'spki' }))
  return { publicKey, privateKey: pair.privateKey }
}

const allowed = {
  'P-256': keys(generateKeyPairSync('ec', { namedCurve: 'P-256' })),
  'P-384': keys(generateKeyPairSync('ec', { namedCurve: 'P-384' })),
  'P-521': keys(generateKeyPairSync('ec', { namedCurve: 'P-521' })),
  'RSA 2048': keys(generateKeyPairSync('rsa', { modulusLength: 2048 })),
}
const p256 = allowed['P-256']
const names = { uris: ['spiffe://example.org/web'], dnsNames: ['web', 'web.example.org'] }
const subject = [
  { type: '2.5.4.6', value: 'US' },
  { type: '2.5.4.10', value: 'SPIRE' },
]
const csrOf = ({ publicKey, privateKey }: ReturnType<typeof keys>): Uint8Array =>
  createCsr({ publicKey, sign: (tbs, hash) => sign(hash, tbs, privateKey), subject, ...names })

for (const [name, pair] of Object.entries(allowed)) {
  test(`createCsr() makes what parseCsr() reads, verifyCsr() and @peculiar/x509 accept, for ${name}`, async () => {
    const der = csrOf(pair)
    const csr = parseCsr(der)
    verifyCsr(csr)
    assert.deepEqual(csr.raw, der)
    assert.deepEqual(csr.publicKey, pair.publicKey)
    assert.deepEqual(csr.subjectAttributes, subject)
    assert.deepEqual({ uris: csr.uris, dnsNames: csr.dnsNames }, names)
    x509.cryptoProvider.set(webcrypto as never)
    const theirs = new x509.Pkcs10CertificateRequest(der)
    assert.equal(await theirs.verify(), true)
    assert.equal(theirs.subject, 'C=US, O=SPIRE')
  })
}

test('createCsr() asks for no names when there are none', () => {
  const { publicKey, privateKey } = p256
  const csr = parseCsr(createCsr({ publicKey, sign: (tbs, hash) => sign(hash, tbs, privateKey) }))
  verifyCsr(csr)
  assert.deepEqual([csr.uris, csr.dnsNames, csr.subjectAttributes], [[], [], []])
})

test('parseCsr() reads a request of @peculiar/x509 with more attributes than ours', async () => {
  x509.cryptoProvider.set(webcrypto as never)
  const algorithm = {
    name: 'RSASSA-PKCS1-v1_5',
    hash: 'SHA-256',
    modulusLength: 2048,
    publicExponent: Uint8Array.of(1, 0, 1),
  }
  const pair = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const made = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=x',
    keys: pair as never,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.KeyUsagesExtension(1, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: names.uris[0] ?? '' }], true),
    ],
    attributes: [new x509.ChallengePasswordAttribute('secret')],
  })
  const csr = parseCsr(new Uint8Array(made.rawData))
  verifyCsr(csr)
  assert.deepEqual(csr.uris, names.uris)
})

const refused = {
  'RSA 1024': keys(generateKeyPairSync('rsa', { modulusLength: 1024 })),
  'RSA with exponent 3': keys(
    generateKeyPairSync('rsa', { modulusLength: 2048, publicExponent: 3 }),
  ),
  Ed25519: keys(generateKeyPairSync('ed25519')),
  secp256k1: keys(generateKeyPairSync('ec', { namedCurve: 'secp256k1' })),
  'P-256 with explicit parameters': keys(
    generateKeyPairSync('ec', { namedCurve: 'P-256', paramEncoding: 'explicit' }),
  ),
}

test('verifyCsr() refuses keys that no SVID may be made of', () => {
  for (const [name, { publicKey, privateKey }] of Object.entries(refused)) {
    if (name === 'RSA with exponent 3') continue
    const algorithm =
      privateKey.asymmetricKeyType === 'rsa' ? '1.2.840.113549.1.1.11' : '1.2.840.10045.4.3.2'
    const csr = parseCsr(rawCsr({ publicKey, algorithm: sequence(oid(algorithm)), privateKey }))
    assert.throws(
      () => verifyCsr(csr),
      { code: 'invalid-argument', reason: 'csr-key-not-allowed' },
      name,
    )
  }
})

test('verifyCsr() takes an RSA key with exponent 3, which some devices make', () => {
  verifyCsr(parseCsr(csrOf(refused['RSA with exponent 3'])))
})

test('verifyCsr() refuses a large RSA key before it computes with it', () => {
  const modulus = new Uint8Array(1025).fill(0xff)
  const key = sequence(integer(modulus), integer(65537n))
  const rsa = sequence(sequence(oid('1.2.840.113549.1.1.1'), Uint8Array.of(5, 0)), bitString(key))
  const csr = parseCsr(
    rawCsr({ publicKey: rsa, algorithm: sequence(oid('1.2.840.113549.1.1.11')) }),
  )
  assert.throws(() => verifyCsr(csr), { reason: 'csr-key-not-allowed', message: /8200 bits/ })
})

test('verifyCsr() refuses a signature by another key, with SHA-1, and over something else', () => {
  const { privateKey } = generateEcKeyPair('ec-p256')
  const { publicKey } = p256
  const other = createCsr({ publicKey, sign: (tbs, hash) => sign(hash, tbs, privateKey) })
  const refusal = { code: 'invalid-argument', reason: 'csr-signature-invalid' }
  assert.throws(() => verifyCsr(parseCsr(other)), refusal)
  const sha1 = rawCsr({ publicKey, algorithm: sequence(oid('1.2.840.10045.4.1')) })
  assert.throws(() => verifyCsr(parseCsr(sha1)), { reason: 'csr-key-not-allowed' })
  const swapped = { ...parseCsr(csrOf(p256)), tbs: parseCsr(csrOf(allowed['P-384'])).tbs }
  assert.throws(() => verifyCsr(swapped), refusal)
  const rsaAlgorithm = rawCsr({ publicKey, algorithm: sequence(oid('1.2.840.113549.1.1.11')) })
  assert.throws(() => verifyCsr(parseCsr(rsaAlgorithm)), refusal)
})

const extensionRequest = (...extensions: Uint8Array[]): Uint8Array =>
  sequence(oid('1.2.840.113549.1.9.14'), set(sequence(...extensions)))
const alternativeName = (uri: string): Uint8Array =>
  sequence(
    oid('2.5.29.17'),
    octetString(sequence(contextPrimitive(6, new TextEncoder().encode(uri)))),
  )

test('parseCsr() refuses alternative names that are asked for twice', () => {
  const twice = [
    [extensionRequest(alternativeName('a:b'), alternativeName('c:d'))],
    [extensionRequest(alternativeName('a:b')), extensionRequest(alternativeName('c:d'))],
  ]
  for (const attributes of twice) {
    assert.throws(() => parseCsr(rawCsr({ attributes })), /twice/)
  }
})

test('parseCsr() refuses another version and trailing bytes', () => {
  assert.throws(() => parseCsr(rawCsr({ version: 1n })), /version 1 is unknown/)
  assert.throws(() => parseCsr(Uint8Array.of(...rawCsr({}), 0)), SyntaxError)
})

test('parseCsr() refuses every truncation and 32 KiB and a byte', () => {
  const der = csrOf(p256)
  for (let length = 0; length < der.length; length++) {
    assert.throws(() => parseCsr(der.subarray(0, length)), {
      name: 'SyntaxError',
      message: /invalid CSR/,
    })
  }
  assert.throws(() => parseCsr(new Uint8Array(32 * 1024 + 1)), /longer than 32768/)
})

test('parseCsr() throws nothing but SyntaxError, and no mutation passes verifyCsr()', () => {
  const random = seeded(5)
  const der = csrOf(p256)
  for (let i = 0; i < 3000; i++) {
    const changed = mutated(random, der)
    if (changed.toHex() === der.toHex()) continue
    try {
      const csr = parseCsr(changed)
      assert.throws(() => verifyCsr(csr), { name: 'AssayError', code: 'invalid-argument' })
    } catch (error) {
      assert.ok(error instanceof SyntaxError, String(error))
    }
  }
})

function rawCsr(options: {
  version?: bigint
  publicKey?: Uint8Array
  algorithm?: Uint8Array
  attributes?: Uint8Array[]
  privateKey?: KeyObject
}): Uint8Array {
  const tbs = sequence(
    integer(options.version ?? 0n),
    sequence(),
    options.publicKey ?? p256.publicKey,
    contextConstructed(0, ...(options.attributes ?? [])),
  )
  const algorithm = options.algorithm ?? sequence(oid('1.2.840.10045.4.3.2'))
  const key = options.privateKey ?? p256.privateKey
  const hash = key.asymmetricKeyType === 'ed25519' ? null : 'sha256'
  return sequence(tbs, algorithm, bitString(sign(hash, tbs, key)))
}
