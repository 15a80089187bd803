import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { sign } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import {
  type Certificate,
  extendedKeyUsage,
  parseCertificate,
  subjectKeyId,
  verifyCertificateSignature,
} from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import { createCsr, parseCsr, verifyCsr } from '#pki/csr.ts'
import { contextConstructed, contextPrimitive, derNull, sequence } from '#pki/der.ts'
import { encodePem, parsePem } from '#pki/pem.ts'
import { exportPkcs8, generateEcKeyPair, generateKeyPair } from '#pki/private-key.ts'
import {
  extension,
  type Issued,
  newAuthority,
  newIntermediate,
  newSvid,
  nowSeconds,
} from '../support/certificates.ts'

// What we make is what OpenSSL reads, what it makes is what we read, and where both judge a chain they agree.

const folder = mkdtempSync(join(tmpdir(), 'assay-openssl-'))
after(() => rmSync(folder, { recursive: true }))

function openssl(...args: string[]): string {
  return execFileSync('openssl', args, {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
  })
}

function write(name: string, label: string, ...ders: Uint8Array[]): string {
  writeFileSync(join(folder, name), ders.map((der) => encodePem(label, der)).join(''))
  return name
}

function readPem(name: string, label: string): Uint8Array {
  const [der] = parsePem(readFileSync(join(folder, name), 'utf8'), label)
  assert.ok(der)
  return der
}

const keyOptions: Record<string, string[]> = {
  'P-256': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'P-384': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384', '-sha384'],
  'P-521': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-521', '-sha512'],
  RSA: ['-newkey', 'rsa:2048'],
  'RSA with SHA-384': ['-newkey', 'rsa:2048', '-sha384'],
  'RSA-PSS': [
    ...['-newkey', 'rsa:2048', '-sha256', '-sigopt', 'rsa_padding_mode:pss'],
    ...['-sigopt', 'rsa_pss_saltlen:32', '-sigopt', 'rsa_mgf1_md:sha256'],
  ],
  Ed25519: ['-newkey', 'ed25519'],
}

for (const [name, options] of Object.entries(keyOptions)) {
  test(`parseCertificate() and verifyCertificateSignature() read what OpenSSL makes with ${name}`, () => {
    openssl(
      ...['req', '-x509', '-nodes', '-keyout', 'key.pem', '-out', 'made.pem', '-days', '7'],
      ...[
        '-subj',
        '/C=US/O=Example, Inc./CN=Grüße',
        '-utf8',
        '-set_serial',
        '0x00ff01',
        ...options,
      ],
      ...['-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
      ...['-addext', 'extendedKeyUsage=serverAuth,clientAuth'],
      ...['-addext', 'subjectAltName=URI:spiffe://td,DNS:a.b,IP:10.0.0.1,email:a@b.c'],
      ...['-addext', 'nameConstraints=critical,permitted;URI:td'],
    )
    const made = parseCertificate(readPem('made.pem', 'CERTIFICATE'))
    assert.equal(made.serialNumber, String(0xff01))
    assert.equal(made.subjectText, 'C=US, O=Example\\, Inc., CN=Grüße')
    assert.deepEqual(made.issuer, made.subject)
    assert.deepEqual(made.basicConstraints, { isCa: true, pathLength: undefined })
    assert.deepEqual(made.extendedKeyUsage, [
      extendedKeyUsage.serverAuth,
      extendedKeyUsage.clientAuth,
    ])
    assert.deepEqual([made.uris, made.dnsNames], [['spiffe://td'], ['a.b']])
    assert.deepEqual(made.alternativeNameTags, [0x86, 0x82, 0x87, 0x81])
    assert.deepEqual(made.subjectKeyId, subjectKeyId(made.publicKey))
    assert.equal(made.notAfterSeconds - made.notBeforeSeconds, 7 * 86400)
    verifyCertificateSignature(made, made.publicKey)
  })
}

test('OpenSSL reads the extensions of the certificates of our tests as they are meant', () => {
  const authority = newAuthority('td', { pathLength: 1 })
  const leaf = newSvid(authority, 'spiffe://td/web', { dnsNames: ['a.b'] })
  const text = (issued: Issued): string =>
    openssl('x509', '-in', write('x.pem', 'CERTIFICATE', issued.certificate), '-noout', '-text')
  const ca = text(authority)
  assert.match(ca, /Key Usage: critical\s+Certificate Sign, CRL Sign\n/)
  assert.match(ca, /Basic Constraints: critical\s+CA:TRUE, pathlen:1\n/)
  const svid = text(leaf)
  assert.match(svid, /Key Usage: critical\s+Digital Signature, Key Encipherment, Key Agreement\n/)
  assert.match(svid, /TLS Web Server Authentication, TLS Web Client Authentication\n/)
  assert.match(svid, /Basic Constraints: critical\s+CA:FALSE\n/)
  assert.match(svid, /URI:spiffe:\/\/td\/web, DNS:a\.b\n/)
})

const uriSubtree = (host: string): Uint8Array => sequence(contextPrimitive(6, utf8Bytes(host)))
const permits = (host: string): Uint8Array[] => [
  extension('2.5.29.30', true, sequence(contextConstructed(0, uriSubtree(host)))),
]

/** Chains that both must judge alike: the leaf, what stands between, the root. */
const chains: Record<string, () => Issued[]> = {
  'a root and a leaf': () => {
    const root = newAuthority('td')
    return [newSvid(root, 'spiffe://td/a'), root]
  },
  'two intermediates': () => {
    const root = newAuthority('td')
    const upper = newIntermediate(root, 'td')
    const lower = newIntermediate(upper, 'td')
    return [newSvid(lower, 'spiffe://td/a'), lower, upper, root]
  },
  'a path length that suffices': () => {
    const root = newAuthority('td', { pathLength: 1 })
    const middle = newIntermediate(root, 'td', { pathLength: 0 })
    return [newSvid(middle, 'spiffe://td/a'), middle, root]
  },
  'a path length that does not suffice': () => {
    const root = newAuthority('td', { pathLength: 0 })
    const middle = newIntermediate(root, 'td')
    return [newSvid(middle, 'spiffe://td/a'), middle, root]
  },
  'a leaf as issuer': () => {
    const root = newAuthority('td')
    const middle = newSvid(root, 'spiffe://td/b', { subject: [{ type: '2.5.4.3', value: 'b' }] })
    return [newSvid(middle, 'spiffe://td/a'), middle, root]
  },
  'an issuer without keyCertSign': () => {
    const root = newAuthority('td')
    const middle = newIntermediate(root, 'td', { keyUsage: 1 })
    return [newSvid(middle, 'spiffe://td/a'), middle, root]
  },
  'an expired leaf': () => {
    const root = newAuthority('td')
    return [newSvid(root, 'spiffe://td/a', { notAfterSeconds: nowSeconds - 5 }), root]
  },
  'an expired root': () => {
    const root = newAuthority('td', { notAfterSeconds: nowSeconds - 5 })
    return [newSvid(root, 'spiffe://td/a'), root]
  },
  'a leaf that is not yet valid': () => {
    const root = newAuthority('td')
    return [newSvid(root, 'spiffe://td/a', { notBeforeSeconds: nowSeconds + 5 }), root]
  },
  'a signature by another key': () => {
    const root = newAuthority('td')
    const signingKey = generateEcKeyPair('ec-p256').privateKey
    return [newSvid(root, 'spiffe://td/a', { signingKey }), root]
  },
  'another root': () => [newSvid(newAuthority('td'), 'spiffe://td/a'), newAuthority('td')],
  'an unknown critical extension': () => {
    const root = newAuthority('td')
    const extensions = [extension('1.2.3', true, derNull())]
    return [newSvid(root, 'spiffe://td/a', { extensions }), root]
  },
  'a permitted URI': () => {
    const root = newAuthority('td', { extensions: permits('a.td') })
    return [newSvid(root, 'spiffe://a.td/a'), root]
  },
  'a URI that is not permitted': () => {
    const root = newAuthority('td', { extensions: permits('b.td') })
    return [newSvid(root, 'spiffe://a.td/a'), root]
  },
  'a URI below a permitted domain': () => {
    const root = newAuthority('td', { extensions: permits('.td') })
    return [newSvid(root, 'spiffe://a.td/a'), root]
  },
}

function accepts(judge: () => unknown): boolean {
  try {
    judge()
    return true
  } catch {
    return false
  }
}

for (const [name, make] of Object.entries(chains)) {
  test(`verifyChain() agrees with openssl verify about ${name}`, () => {
    const certificates = make().map(({ certificate }) => certificate)
    const [leaf, ...rest] = certificates
    const root = rest.pop()
    assert.ok(leaf && root)
    const parsed = (der: Uint8Array): Certificate => parseCertificate(der)
    const ours = accepts(() =>
      verifyChain({
        leaf: parsed(leaf),
        intermediates: rest.map(parsed),
        roots: [parsed(root)],
        nowSeconds,
      }),
    )
    const files = [
      ...['-CAfile', write('root.pem', 'CERTIFICATE', root)],
      ...(rest.length > 0 ? ['-untrusted', write('rest.pem', 'CERTIFICATE', ...rest)] : []),
      write('leaf.pem', 'CERTIFICATE', leaf),
    ]
    const theirs = accepts(() =>
      openssl('verify', '-x509_strict', '-attime', String(nowSeconds), ...files),
    )
    assert.equal(ours, theirs)
    assert.equal(
      ours,
      /^(a root and|two|a path length that suf|a permitted|a URI below)/.test(name),
    )
  })
}

for (const type of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`OpenSSL accepts the request and the private key that we write for ${type}`, async () => {
    const { privateKey, publicKey } = await generateKeyPair(type)
    const request = createCsr({
      publicKey,
      sign: (tbs, hash) => sign(hash, tbs, privateKey),
      subject: [{ type: '2.5.4.10', value: 'SPIRE' }],
      uris: ['spiffe://td/web'],
      dnsNames: ['a.b'],
    })
    const file = write('csr.pem', 'CERTIFICATE REQUEST', request)
    const text = openssl('req', '-in', file, '-verify', '-noout', '-text')
    assert.match(text, /URI:spiffe:\/\/td\/web, DNS:a\.b/)
    write('pkcs8.pem', 'PRIVATE KEY', exportPkcs8(privateKey))
    openssl('pkey', '-in', 'pkcs8.pem', '-check', '-noout')
    openssl('pkey', '-in', 'pkcs8.pem', '-pubout', '-out', 'public.pem')
    assert.deepEqual(readPem('public.pem', 'PUBLIC KEY'), publicKey)
  })
}

test('parseCsr() and verifyCsr() accept a request of OpenSSL', () => {
  openssl(
    ...['req', '-new', '-nodes', '-newkey', 'rsa:2048', '-keyout', 'key.pem', '-out', 'made.csr'],
    ...['-subj', '/CN=x', '-addext', 'subjectAltName=URI:spiffe://td/web'],
    ...['-addext', 'keyUsage=critical,digitalSignature'],
  )
  const csr = parseCsr(readPem('made.csr', 'CERTIFICATE REQUEST'))
  verifyCsr(csr)
  assert.deepEqual(csr.uris, ['spiffe://td/web'])
})
