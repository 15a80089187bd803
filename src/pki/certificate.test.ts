import 'reflect-metadata'
import assert from 'node:assert/strict'
import { generateKeyPairSync, webcrypto, X509Certificate } from 'node:crypto'
import { test } from 'node:test'
import * as x509 from '@peculiar/x509'
import { concatBytes, equalBytes } from '#base/bytes.ts'
import {
  encodeKeyUsage,
  extension,
  issue,
  newAuthority,
  newSvid,
  nowSeconds,
} from '../../test/support/certificates.ts'
import { mutated, seeded } from '../../test/support/seeded.ts'
import {
  extendedKeyUsage,
  extensionOid,
  keyUsageBit,
  parseCertificate,
  splitCertificates,
  subjectKeyId,
  verifyCertificateSignature,
} from './certificate.ts'
import {
  boolean,
  children,
  contextConstructed,
  contextPrimitive,
  integer,
  octetString,
  oid,
  readElement,
  sequence,
  utf8String,
} from './der.ts'
import { encodeName } from './name.ts'
import { generateEcKeyPair } from './private-key.ts'

const authority = newAuthority('example.org')
const svid = newSvid(authority, 'spiffe://example.org/web', {
  dnsNames: ['web.example.org', '*.web.example.org'],
})

test('parseCertificate() reads every field of a leaf', () => {
  const leaf = parseCertificate(svid.certificate)
  const node = new X509Certificate(svid.certificate)
  assert.deepEqual(leaf.raw, svid.certificate)
  assert.equal(leaf.version, 3)
  assert.equal(
    BigInt(leaf.serialNumber).toString(16).toUpperCase().padStart(2, '0'),
    node.serialNumber,
  )
  assert.deepEqual(leaf.issuer, authority.name)
  assert.deepEqual(leaf.subject, svid.name)
  assert.equal(leaf.subjectText, 'C=US, O=SPIRE')
  assert.equal(leaf.notBeforeSeconds, nowSeconds - 10)
  assert.equal(leaf.notAfterSeconds, nowSeconds + 3600)
  assert.deepEqual(leaf.publicKey, svid.key.publicKey)
  assert.equal(
    leaf.keyUsage,
    keyUsageBit.digitalSignature | keyUsageBit.keyEncipherment | keyUsageBit.keyAgreement,
  )
  assert.deepEqual(leaf.extendedKeyUsage, [
    extendedKeyUsage.serverAuth,
    extendedKeyUsage.clientAuth,
  ])
  assert.deepEqual(leaf.basicConstraints, { isCa: false, pathLength: undefined })
  assert.deepEqual(leaf.subjectKeyId, subjectKeyId(svid.key.publicKey))
  assert.deepEqual(leaf.authorityKeyId, subjectKeyId(authority.key.publicKey))
  assert.deepEqual(leaf.uris, ['spiffe://example.org/web'])
  assert.deepEqual(leaf.dnsNames, ['web.example.org', '*.web.example.org'])
  assert.deepEqual(leaf.directoryNames, [])
  assert.deepEqual(leaf.alternativeNameTags, [0x86, 0x82, 0x82])
  assert.equal(leaf.signatureAlgorithm, '1.2.840.10045.4.3.2')
})

test('parseCertificate() sees the same extensions as @peculiar/x509 in a certificate that one makes', async () => {
  x509.cryptoProvider.set(webcrypto as never)
  const algorithm = { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const made = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '00ff01',
    name: 'C=DE, O="A, B", CN=Grüße',
    notBefore: new x509.X509Certificate(svid.certificate).notBefore,
    notAfter: new x509.X509Certificate(svid.certificate).notAfter,
    signingAlgorithm: algorithm,
    keys: keys as never,
    extensions: [
      new x509.BasicConstraintsExtension(true, 2, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.decipherOnly,
        true,
      ),
      new x509.ExtendedKeyUsageExtension(['2.23.133.8.1'], false),
      new x509.SubjectAlternativeNameExtension([
        { type: 'url', value: 'spiffe://example.org' },
        { type: 'dns', value: 'a.b' },
        { type: 'ip', value: '10.0.0.1' },
        { type: 'dn', value: 'CN=inner' },
      ]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey as never),
    ],
  })
  const parsed = parseCertificate(new Uint8Array(made.rawData))
  assert.equal(parsed.serialNumber, String(0xff01))
  assert.equal(parsed.subjectText, 'C=DE, O=A\\, B, CN=Grüße')
  assert.deepEqual(parsed.basicConstraints, { isCa: true, pathLength: 2 })
  assert.equal(parsed.keyUsage, keyUsageBit.keyCertSign | keyUsageBit.decipherOnly)
  assert.deepEqual(parsed.extendedKeyUsage, ['2.23.133.8.1'])
  assert.deepEqual(parsed.uris, ['spiffe://example.org'])
  assert.deepEqual(parsed.dnsNames, ['a.b'])
  assert.deepEqual(parsed.alternativeNameTags, [0x86, 0x82, 0x87, 0xa4])
  assert.deepEqual(parsed.directoryNames, [encodeName([{ type: '2.5.4.3', value: 'inner' }])])
  assert.equal(parsed.notBeforeSeconds, nowSeconds - 10)
  assert.deepEqual(
    parsed.extensions.map((e) => [e.oid, e.critical, e.value.toHex()]),
    Array.from(made.extensions, (e) => [e.type, e.critical, new Uint8Array(e.value).toHex()]),
  )
  assert.deepEqual(subjectKeyId(parsed.publicKey), parsed.subjectKeyId)
  verifyCertificateSignature(parsed, parsed.publicKey)
})

test('the certificates of these tests are read alike by @peculiar/x509', () => {
  for (const { certificate } of [authority, svid]) {
    const theirs = new x509.X509Certificate(certificate)
    const ours = parseCertificate(certificate)
    assert.deepEqual(
      ours.extensions.map((e) => [e.oid, e.critical, e.value.toHex()]),
      Array.from(theirs.extensions, (e) => [e.type, e.critical, new Uint8Array(e.value).toHex()]),
    )
  }
})

test('parseCertificate() refuses every truncation, also when lenient', () => {
  for (let length = 0; length < svid.certificate.length; length++) {
    const cut = svid.certificate.subarray(0, length)
    assert.throws(() => parseCertificate(cut), {
      name: 'SyntaxError',
      message: /invalid certificate/,
    })
    assert.throws(() => parseCertificate(cut, { lenient: true }), SyntaxError)
  }
})

test('parseCertificate() throws nothing but SyntaxError, and no change of a signed byte verifies', () => {
  const random = seeded(4)
  const issuer = parseCertificate(authority.certificate)
  let parsed = 0
  for (let i = 0; i < 3000; i++) {
    const changed = mutated(random, svid.certificate)
    for (const lenient of [false, true]) {
      try {
        const certificate = parseCertificate(changed, { lenient })
        parsed++
        if (equalBytes(certificate.raw, svid.certificate)) continue
        assert.throws(() => verifyCertificateSignature(certificate, issuer.publicKey), {
          name: 'AssayError',
        })
      } catch (error) {
        assert.ok(error instanceof SyntaxError, String(error))
      }
    }
  }
  assert.ok(parsed > 100, 'the mutations are too coarse to test anything')
})

test('parseCertificate() refuses 64 KiB and a byte', () => {
  assert.throws(() => parseCertificate(new Uint8Array(64 * 1024 + 1)), /longer than 65536/)
})

test('parseCertificate() takes bytes after the certificate only when lenient, and leaves them out', () => {
  const padded = concatBytes(svid.certificate, new Uint8Array(100).fill(0xff))
  assert.throws(() => parseCertificate(padded), SyntaxError)
  assert.deepEqual(parseCertificate(padded, { lenient: true }).raw, svid.certificate)
})

/** A certificate of which one part of the signed content is replaced. */
function withField(index: number, replacement: Uint8Array): Uint8Array {
  const [tbs, algorithm, signature] = children(readElement(svid.certificate)).map((e) => e.raw)
  const fields = children(readElement(tbs ?? new Uint8Array(0))).map((e) => e.raw)
  fields[index] = replacement
  return sequence(sequence(...fields), algorithm ?? replacement, signature ?? replacement)
}

const [serialAt, algorithmAt, validityAt] = [1, 2, 4]

test('parseCertificate() takes a padded or negative serial number only when lenient', () => {
  for (const serial of ['0202007f', '020180', `0216${'01'.repeat(22)}`]) {
    const odd = withField(serialAt, Uint8Array.fromHex(serial))
    assert.throws(() => parseCertificate(odd), SyntaxError)
    assert.ok(parseCertificate(odd, { lenient: true }))
  }
  const huge = withField(serialAt, Uint8Array.fromHex(`0241${'01'.repeat(65)}`))
  assert.throws(() => parseCertificate(huge, { lenient: true }), SyntaxError)
})

test('parseCertificate() refuses a signed algorithm that is not the one of the signature', () => {
  const other = sequence(oid('1.2.840.10045.4.3.3'))
  assert.throws(() => parseCertificate(withField(algorithmAt, other)), /signed algorithm/)
})

test('parseCertificate() reads the year 9999 of certificates without end', () => {
  const end = sequence(
    Uint8Array.from([0x17, 13, ...new TextEncoder().encode('260101000000Z')]),
    Uint8Array.from([0x18, 15, ...new TextEncoder().encode('99991231235959Z')]),
  )
  assert.equal(parseCertificate(withField(validityAt, end)).notAfterSeconds, 253402300799)
})

const alternativeNames = (...names: Uint8Array[]): Uint8Array =>
  extension(extensionOid.subjectAltName, false, sequence(...names))

for (const [name, extensions] of Object.entries<Uint8Array[]>({
  'an extension twice': [
    extension('1.2.3', false, integer(1n)),
    extension('1.2.3', false, integer(2n)),
  ],
  'alternative names without any': [alternativeNames()],
  'a URI that is not ASCII': [alternativeNames(contextPrimitive(6, Uint8Array.of(0xc3, 0xa5)))],
  'an alternative name of no kind': [alternativeNames(utf8String('a'))],
  'a key usage that is no bit string': [extension(extensionOid.keyUsage, true, integer(1n))],
  'a path length without a CA': [
    extension(extensionOid.basicConstraints, true, sequence(integer(1n))),
  ],
  'a negative path length': [
    extension(
      extensionOid.basicConstraints,
      true,
      sequence(boolean(true), Uint8Array.of(2, 1, 0xff)),
    ),
  ],
  'an empty extended key usage': [extension(extensionOid.extendedKeyUsage, false, sequence())],
  'bytes after an extension': [
    extension(extensionOid.keyUsage, true, concatBytes(encodeKeyUsage(1), Uint8Array.of(5, 0))),
  ],
  'basic constraints of something else': [
    extension(extensionOid.basicConstraints, true, sequence(octetString(Uint8Array.of(1)))),
  ],
})) {
  test(`parseCertificate() refuses ${name}`, () => {
    const { certificate } = issue(authority, { extensions })
    assert.throws(() => parseCertificate(certificate), SyntaxError)
  })
}

test('parseCertificate() takes a default that is written out', () => {
  const value = sequence(boolean(false))
  const { certificate } = issue(authority, {
    extensions: [extension(extensionOid.basicConstraints, true, value)],
  })
  assert.equal(parseCertificate(certificate).basicConstraints?.isCa, false)
})

test('parseCertificate() reads the directory names of an endorsement certificate', () => {
  const name = encodeName([
    { type: '2.23.133.2.1', value: 'id:00001014' },
    { type: '2.23.133.2.2', value: 'swtpm' },
  ])
  const { certificate } = issue(authority, {
    extensions: [alternativeNames(contextConstructed(4, name))],
  })
  assert.deepEqual(parseCertificate(certificate).directoryNames, [name])
})

test('verifyCertificateSignature() refuses another key, another type of key and a key that is none', () => {
  const leaf = parseCertificate(svid.certificate)
  verifyCertificateSignature(leaf, authority.key.publicKey)
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey
  const refusal = { code: 'unauthenticated', reason: 'signature-invalid' }
  assert.throws(
    () => verifyCertificateSignature(leaf, generateEcKeyPair('ec-p256').publicKey),
    refusal,
  )
  assert.throws(() => verifyCertificateSignature(leaf, rsa), refusal)
  assert.throws(() => verifyCertificateSignature(leaf, sequence()), { reason: 'key-not-allowed' })
})

test('splitCertificates() gives back what was joined', () => {
  const certificates = [svid.certificate, authority.certificate]
  assert.deepEqual(splitCertificates(concatBytes(...certificates)), certificates)
  assert.deepEqual(splitCertificates(new Uint8Array(0)), [])
  for (const bad of [svid.certificate.subarray(1), svid.certificate.subarray(0, -1), integer(1n)]) {
    assert.throws(() => splitCertificates(bad), SyntaxError)
  }
})
