import { concatBytes } from '#base/bytes.ts'
import { keyUsageBit } from '#pki/certificate.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { digest } from '#tpm/wire/algorithms.ts'
import { algorithm, objectAttribute } from '#tpm/wire/constants.ts'
import { sized, u32 } from '#tpm/wire/marshal.ts'
import { nameOf, type PublicArea, writePublicArea } from '#tpm/wire/public-area.ts'
import { attestationKeyTemplate } from '#tpm/wire/templates.ts'
import {
  basicConstraints,
  caCertificate,
  extendedKeyUsage,
  extension,
  intermediateCertificate,
  keyUsage,
  maker,
  newCaKey,
  tpmNames,
} from '../support/endorsement-maker.ts'
import {
  endorsementTemplates,
  firmwareVersion,
  forgedEndorsementKey,
  honestExtensions,
  rsaKeyOf,
  softwareKey,
} from '../support/forged-tpm.ts'
import { testConnection } from '../support/tpm-exchange.ts'
import type { Forgery } from './forgery.ts'

// Every lie we know of, each with the check that sees through it; docs/tpm-attestation.md explains the checks.

const cut = (bytes: Uint8Array): Uint8Array => bytes.subarray(0, bytes.length - 1)
const trail = (bytes: Uint8Array): Uint8Array => concatBytes(bytes, Uint8Array.of(0))
const mallory = newCaKey()
const ecc = honestExtensions('ecc')
const extensions = (changes: Partial<typeof ecc>): { extensions: Uint8Array[] } => ({
  extensions: Object.values({ ...ecc, ...changes }),
})
const wholeCheck = ['tpm/wire/marshal.ts', 'if (reader.left > 0)', 'if (false)'] as const
const otherKey = softwareKey(attestationKeyTemplate)
const honestPolicy = { state: 'allowed', nodeName: 'n1', clock: undefined } as const
const seen = { resetCount: 40, restartCount: 4, clock: 1_000_000n, firmwareVersion }

/** Presents the forger's endorsement key with another public area around it. */
const endorsementArea = (changes: Partial<PublicArea>) => ({
  endorsementArea: () =>
    writePublicArea({ ...forgedEndorsementKey.area, ...changes } as PublicArea),
})

/** An attestation key by another template, which the forger holds in software. */
const attestationKey = (changes: Partial<PublicArea>) => {
  const key = softwareKey(attestationKeyTemplate)
  return { attestationKey: { ...key, area: { ...key.area, ...changes } as PublicArea } }
}

/** A chain with an intermediate, whose certificate has changes. */
const throughIntermediate = (changes: Parameters<typeof intermediateCertificate>[0] = {}) => ({
  certificate: { issuer: maker.intermediateName, signingKey: maker.intermediate.privateKey },
  chain: (certificate: Uint8Array) => [certificate, intermediateCertificate(changes)],
})

/** The flawed generator's primes: 65537 to some power modulo the product of the first 126 primes, plus a multiple. */
const rocaKey = rsaKeyOf(
  0xc05f82133341b23f08f2b8e6f70fd145d152feacce33c2710687f06ee856e8a2de21c34c21d4405b2715e2577bc8f27464c455c572e0a0521ec11b67d10d47d22667a84019d7a4b5899a112695f404f41036bd1991b26155cffed45e45fcb40cd6af083ef2bf87161bd356a127f3be6eaff3c0817cbbab17b03f4cc3e6103ae7n,
  0xc0286bdc222899293cdadbef0802ba2863c345a25b75e7de3d8a6da63f7efda3d7a7a8690920e4cc32291eeb2a63e2f08fe7637663a49092a13bd803d0c185dfdef3c6a1b72cc240d5bed6000d8d2b0ee3db34bfb0ba22c10f2b95f4d000122abd5f4dc15b3ebae246d9eb99d2c58fb34379b432c6d5ac14b5486a579908989dn,
)

const messages: readonly Forgery[] = [
  {
    name: 'evidence that is cut short',
    reason: 'attestation-malformed',
    without: 'broken',
    lies: { payload: cut },
  },
  {
    name: 'evidence with a byte after it',
    reason: 'attestation-malformed',
    without: 'accepted',
    check: wholeCheck,
    lies: { payload: trail },
  },
  {
    name: 'evidence of another version',
    reason: 'attestation-malformed',
    without: 'accepted',
    check: ['attestation/tpm.ts', 'if (found !== version)', 'if (false)'],
    lies: { payload: (bytes) => bytes.with(0, 2) },
  },
  {
    name: 'evidence of more than 1 MiB',
    reason: 'attestation-malformed',
    without: 'broken',
    lies: { payload: (bytes) => concatBytes(bytes, new Uint8Array(2 ** 20)) },
  },
  {
    name: 'evidence with nine certificates',
    reason: 'attestation-malformed',
    without: 'accepted',
    check: ['attestation/tpm.ts', 'if (count > limit)', 'if (false)'],
    lies: { chain: (certificate) => Array.from({ length: 9 }, () => certificate) },
  },
  {
    name: 'an answer that is cut short',
    reason: 'attestation-answer-malformed',
    without: 'broken',
    lies: { answerBytes: cut },
  },
  {
    name: 'an answer with a byte after it',
    reason: 'attestation-answer-malformed',
    without: 'accepted',
    check: wholeCheck,
    lies: { answerBytes: trail },
  },
  {
    name: 'an answer that comes after 60 seconds',
    reason: 'attestation-expired',
    without: 'accepted',
    check: ['server/plugin/node-attestor/tpm.ts', '{ seconds: 60 }', '{ seconds: 600 }'],
    meanwhile: ({ clock }) => clock.advance(Temporal.Duration.from({ seconds: 60 })),
  },
  {
    name: 'evidence that is not sent over TLS',
    reason: 'attestation-without-tls',
    without: 'broken',
    withoutTls: true,
  },
]

const standing: readonly Forgery[] = [
  {
    name: 'an endorsement key nobody has approved',
    reason: 'endorsement-key-pending',
    without: 'accepted',
    server: { allow: 'inventory' },
  },
  {
    name: 'an endorsement key that is still pending',
    reason: 'endorsement-key-pending',
    without: 'accepted',
    server: { allow: 'inventory' },
    record: { ...honestPolicy, state: 'pending' },
  },
  {
    name: 'an endorsement key that is denied',
    reason: 'endorsement-key-denied',
    without: 'accepted',
    record: { ...honestPolicy, state: 'denied' },
  },
  {
    name: 'an endorsement key that is banned',
    reason: 'endorsement-key-banned',
    without: 'accepted',
    record: { ...honestPolicy, state: 'banned' },
  },
  {
    name: 'an endorsement key that is banned while it attests',
    reason: 'endorsement-key-banned',
    without: 'accepted',
    record: honestPolicy,
    meanwhile: async ({ inventory, hash }) => inventory.set(hash, { state: 'banned' }),
  },
  {
    name: 'no certificate, where one must vouch',
    reason: 'endorsement-certificate-missing',
    without: 'accepted',
    lies: { chain: () => [] },
  },
]

const endorsementKeys: readonly Forgery[] = [
  {
    name: 'an endorsement key that is cut short',
    reason: 'endorsement-key-malformed',
    without: 'broken',
    lies: { endorsementArea: cut },
  },
  {
    name: 'an endorsement key with a byte after it',
    reason: 'endorsement-key-malformed',
    without: 'endorsement-key-template',
    check: wholeCheck,
    lies: { endorsementArea: trail },
  },
  {
    name: 'an endorsement key that may leave its TPM',
    reason: 'endorsement-key-template',
    without: 'accepted',
    lies: endorsementArea({
      attributes: endorsementTemplates.p256.attributes & ~objectAttribute.fixedTpm,
    }),
  },
  {
    name: 'an endorsement key that decrypts for everybody',
    reason: 'endorsement-key-template',
    without: 'accepted',
    lies: endorsementArea({
      attributes: endorsementTemplates.p256.attributes & ~objectAttribute.restricted,
    }),
  },
  {
    name: 'an endorsement key with another policy',
    reason: 'endorsement-key-template',
    without: 'accepted',
    lies: endorsementArea({ policy: new Uint8Array(32) }),
  },
  {
    name: 'an endorsement key off its curve',
    reason: 'endorsement-key-invalid',
    without: 'endorsement-key-pending',
    lies: { ...endorsementArea({ x: new Uint8Array(32).fill(1) }), chain: () => [] },
    server: { allow: 'inventory' },
  },
  {
    name: 'an endorsement key from Infineon’s flawed generator',
    reason: 'endorsement-key-roca',
    without: 'accepted',
    lies: {
      endorsementKey: rocaKey,
      certificate: { extensions: Object.values(honestExtensions('rsa')) },
    },
  },
]

const certificates: readonly Forgery[] = [
  {
    name: 'a certificate that is cut short',
    reason: 'endorsement-certificate-malformed',
    without: 'broken',
    lies: { chain: (certificate) => [cut(certificate)] },
  },
  {
    name: 'a certificate with bytes after it',
    reason: 'endorsement-certificate-malformed',
    without: 'accepted',
    check: [
      'tpm/verify/certificate-quirks.ts',
      'if (certificate.raw.length !== der.length)',
      'if (false)',
    ],
    lies: { chain: (certificate) => [trail(certificate)] },
  },
  {
    name: 'a certificate of version 1',
    reason: 'endorsement-certificate-version',
    without: 'endorsement-certificate-names-no-tpm',
    lies: { certificate: { version: 1 } },
  },
  {
    name: 'the certificate of another key',
    reason: 'endorsement-certificate-other-key',
    without: 'accepted',
    lies: { certificate: { publicKey: mallory.publicKey } },
  },
  {
    name: 'a CA certificate for the endorsement key',
    reason: 'endorsement-certificate-is-ca',
    without: 'accepted',
    lies: { certificate: extensions({ constraints: basicConstraints(true) }) },
  },
  {
    name: 'a certificate for signatures',
    reason: 'endorsement-certificate-key-usage',
    without: 'accepted',
    lies: { certificate: extensions({ usage: keyUsage(keyUsageBit.digitalSignature) }) },
  },
  {
    name: 'a certificate whose extended key usage lacks endorsement',
    reason: 'endorsement-certificate-extended-key-usage',
    without: 'accepted',
    lies: { certificate: extensions({ extendedUsage: extendedKeyUsage('1.3.6.1.5.5.7.3.1') }) },
  },
  {
    name: 'a certificate with an unknown critical extension',
    reason: 'endorsement-certificate-critical-extension',
    without: 'accepted',
    lies: {
      certificate: {
        extensions: [...Object.values(ecc), extension('1.2.3.4', true, Uint8Array.of(5, 0))],
      },
    },
  },
  {
    name: 'a certificate that names no model',
    reason: 'endorsement-certificate-names-no-tpm',
    without: 'accepted',
    lies: { certificate: extensions({ names: tpmNames('id:41535359', '', 'id:1') }) },
  },
  {
    name: 'a certificate that is not valid yet',
    reason: 'endorsement-certificate-not-yet-valid',
    without: 'accepted',
    lies: { certificate: { notBefore: '2026-06-02T00:00:00Z' } },
  },
  {
    name: 'a certificate that has expired',
    reason: 'endorsement-certificate-expired',
    without: 'accepted',
    lies: { certificate: { notAfter: '2026-05-31T00:00:00Z' } },
  },
  {
    name: 'an expired certificate of a known node, where expiry is always enforced',
    reason: 'endorsement-certificate-expired',
    without: 'accepted',
    lies: { certificate: { notAfter: '2026-05-31T00:00:00Z' } },
    server: { expiry: 'enforce' },
    record: honestPolicy,
  },
  {
    name: 'a badly encoded serial number, where that is not tolerated',
    reason: 'endorsement-certificate-quirk',
    without: 'accepted',
    lies: { certificate: { serial: Uint8Array.of(0, 0, 7) } },
    server: { toleratedQuirks: [] },
  },
  {
    name: 'a missing extended key usage, where that is not tolerated',
    reason: 'endorsement-certificate-quirk',
    without: 'accepted',
    lies: { certificate: { extensions: [ecc.constraints, ecc.usage, ecc.names] } },
    server: { toleratedQuirks: [] },
  },
]

const issuers: readonly Forgery[] = [
  {
    name: 'a certificate by the forger’s own CA',
    reason: 'endorsement-issuer-unknown',
    without: 'accepted',
    lies: { certificate: { issuer: 'Mallory', signingKey: mallory.privateKey } },
  },
  {
    name: 'a chain to the forger’s own root',
    reason: 'endorsement-issuer-unknown',
    without: 'accepted',
    lies: {
      certificate: { issuer: 'Mallory', signingKey: mallory.privateKey },
      chain: (certificate) => [
        certificate,
        caCertificate({
          subject: 'Mallory',
          issuer: 'Mallory',
          publicKey: mallory.publicKey,
          signingKey: mallory.privateKey,
        }),
      ],
    },
  },
  {
    name: 'a certificate in the name of an installed CA',
    reason: 'endorsement-issuer-signature',
    without: 'accepted',
    lies: { certificate: { signingKey: mallory.privateKey } },
  },
  {
    name: 'an intermediate in the name of an installed CA',
    reason: 'endorsement-issuer-signature',
    without: 'accepted',
    lies: throughIntermediate({ signingKey: mallory.privateKey }),
  },
  {
    name: 'a certificate issued with the key of another endorsement certificate',
    reason: 'endorsement-issuer-not-ca',
    without: 'accepted',
    lies: throughIntermediate({ extensions: Object.values(ecc) }),
  },
  {
    name: 'an intermediate that may not sign certificates',
    reason: 'endorsement-issuer-not-ca',
    without: 'accepted',
    lies: throughIntermediate({
      extensions: [basicConstraints(true), keyUsage(keyUsageBit.digitalSignature)],
    }),
  },
  {
    name: 'an intermediate below a root that allows none',
    reason: 'endorsement-issuer-path-length',
    without: 'accepted',
    lies: throughIntermediate(),
    server: {
      endorsementAuthorities: [
        caCertificate({
          extensions: [basicConstraints(true, 0), keyUsage(keyUsageBit.keyCertSign)],
        }),
      ],
    },
  },
  {
    name: 'an intermediate with an unknown critical extension',
    reason: 'endorsement-issuer-critical-extension',
    without: 'accepted',
    lies: throughIntermediate({
      extensions: [
        basicConstraints(true),
        keyUsage(keyUsageBit.keyCertSign),
        extension('1.2.3.4', true, Uint8Array.of(5, 0)),
      ],
    }),
  },
  {
    name: 'an intermediate that has expired',
    reason: 'endorsement-issuer-validity',
    without: 'accepted',
    lies: throughIntermediate({ notAfter: '2026-05-31T00:00:00Z' }),
  },
]

const attestationKeys: readonly Forgery[] = [
  {
    name: 'an attestation key that is cut short',
    reason: 'attestation-key-malformed',
    without: 'broken',
    lies: { attestationArea: cut },
  },
  {
    name: 'an attestation key with a byte after it',
    reason: 'attestation-key-malformed',
    without: 'accepted',
    check: wholeCheck,
    lies: { attestationArea: trail },
  },
  {
    name: 'an attestation key that is not restricted, so that it signs what no TPM made',
    reason: 'attestation-key-attributes',
    without: 'accepted',
    lies: attestationKey({
      attributes: attestationKeyTemplate.attributes & ~objectAttribute.restricted,
    }),
  },
  {
    name: 'an attestation key that was made outside the TPM',
    reason: 'attestation-key-attributes',
    without: 'accepted',
    lies: attestationKey({
      attributes: attestationKeyTemplate.attributes & ~objectAttribute.sensitiveDataOrigin,
    }),
  },
  {
    name: 'an attestation key that may leave its TPM',
    reason: 'attestation-key-attributes',
    without: 'accepted',
    lies: attestationKey({
      attributes: attestationKeyTemplate.attributes & ~objectAttribute.fixedTpm,
    }),
  },
  {
    name: 'an attestation key that decrypts, too',
    reason: 'attestation-key-attributes',
    without: 'accepted',
    lies: attestationKey({
      attributes: attestationKeyTemplate.attributes | objectAttribute.decrypt,
    }),
  },
  {
    name: 'an attestation key on another curve',
    reason: 'attestation-key-type',
    without: 'quote-signature-range',
    lies: {
      attestationKey: {
        ...softwareKey({ ...attestationKeyTemplate, curve: 'P-384' }),
      },
    },
  },
  {
    name: 'an RSA attestation key',
    reason: 'attestation-key-type',
    without: 'attestation-key-scheme',
    lies: {
      attestationKey: {
        ...rocaKey,
        area: {
          ...rocaKey.area,
          attributes: attestationKeyTemplate.attributes,
          policy: new Uint8Array(0),
          symmetricBits: undefined,
          scheme: { algorithm: algorithm.rsaSsa, hash: 'sha256' },
        },
      },
    },
  },
  {
    name: 'an attestation key named by another hash',
    reason: 'attestation-key-name-algorithm',
    without: 'accepted',
    lies: attestationKey({ nameAlgorithm: 'sha384' }),
  },
  {
    name: 'an attestation key with a policy',
    reason: 'attestation-key-policy',
    without: 'accepted',
    lies: attestationKey({ policy: new Uint8Array(32) }),
  },
  {
    name: 'an attestation key bound to another hash',
    reason: 'attestation-key-scheme',
    without: 'accepted',
    lies: attestationKey({ scheme: { algorithm: algorithm.ecdsa, hash: 'sha384' } }),
  },
  {
    name: 'an attestation key bound to no scheme',
    reason: 'attestation-key-scheme',
    without: 'accepted',
    lies: attestationKey({ scheme: undefined }),
  },
  {
    name: 'an attestation key off its curve',
    reason: 'attestation-key-invalid',
    without: 'broken',
    lies: attestationKey({ x: new Uint8Array(32).fill(1) }),
  },
]

const elsewhere = testConnection('another connection')
const proofs: readonly Forgery[] = [
  {
    name: 'an answer without the activated secret: the keys are in two TPMs',
    reason: 'attestation-proof',
    without: 'accepted',
    lies: { secret: new Uint8Array(32) },
  },
  {
    name: 'an answer for another certificate request',
    reason: 'attestation-proof',
    without: 'accepted',
    lies: { provenTranscript: { csrPublicKey: elsewhere.csrPublicKey } },
  },
  {
    name: 'an answer for another TLS connection',
    reason: 'attestation-proof',
    without: 'accepted',
    lies: { provenTranscript: { exported: elsewhere.exporter('', 32) } },
  },
  {
    name: 'an answer for another trust domain',
    reason: 'attestation-proof',
    without: 'accepted',
    lies: { provenTranscript: { trustDomain: parseTrustDomain('example.com') } },
  },
  {
    name: 'an answer to another nonce',
    reason: 'attestation-proof',
    without: 'accepted',
    lies: { provenTranscript: { nonce: new Uint8Array(32) } },
  },
  {
    name: 'an answer for another endorsement key',
    reason: 'attestation-proof',
    without: 'accepted',
    lies: { provenTranscript: { endorsementKey: mallory.publicKey } },
  },
  {
    name: 'an answer for another attestation key',
    reason: 'attestation-proof',
    without: 'accepted',
    lies: { provenTranscript: { attestationKeyName: nameOf(otherKey.area) } },
  },
  {
    name: 'an answer that a relay got on its own connection for its own certificate request',
    reason: 'attestation-proof',
    without: 'quote-qualifying-data',
    connection: elsewhere,
  },
  {
    name: 'the answer of an earlier attestation, replayed',
    reason: 'attestation-proof',
    without: 'quote-qualifying-data',
    replay: true,
  },
]

const quotes: readonly Forgery[] = [
  {
    name: 'a signature that is cut short',
    reason: 'quote-signature-malformed',
    without: 'broken',
    lies: { signatureBytes: cut },
  },
  {
    name: 'a signature with a byte after it',
    reason: 'quote-signature-malformed',
    without: 'accepted',
    check: wholeCheck,
    lies: { signatureBytes: trail },
  },
  {
    name: 'a signature with another hash',
    reason: 'quote-signature-algorithm',
    without: 'accepted',
    lies: { signatureHash: 'sha384' },
  },
  {
    name: 'a signature whose r is zero',
    reason: 'quote-signature-range',
    without: 'quote-signature-invalid',
    lies: { signature: (honest) => ({ ...honest, r: new Uint8Array(32) }) },
  },
  {
    name: 'a signature whose s is above the order of the curve',
    reason: 'quote-signature-range',
    without: 'quote-signature-invalid',
    lies: { signature: (honest) => ({ ...honest, s: new Uint8Array(32).fill(0xff) }) },
  },
  {
    name: 'a signature whose s is empty',
    reason: 'quote-signature-range',
    without: 'quote-signature-invalid',
    lies: { signature: (honest) => ({ ...honest, s: new Uint8Array(0) }) },
  },
  {
    name: 'a signature whose r has a byte too many',
    reason: 'quote-signature-range',
    without: 'broken',
    lies: {
      signature: (honest) =>
        'r' in honest ? { ...honest, r: concatBytes(Uint8Array.of(0), honest.r) } : honest,
    },
  },
  {
    name: 'a quote signed by another key',
    reason: 'quote-signature-invalid',
    without: 'accepted',
    lies: { signingKey: otherKey.privateKey },
  },
  {
    name: 'a quote changed after it was signed',
    reason: 'quote-signature-invalid',
    without: 'accepted',
    lies: {
      answer: (answer) => ({
        ...answer,
        quote: { ...answer.quote, attested: raisedClock(answer.quote.attested) },
      }),
    },
  },
  {
    name: 'a structure no TPM made',
    reason: 'quote-magic',
    without: 'accepted',
    lies: { attested: () => ({ magic: 0 }) },
  },
  {
    name: 'a structure of another type than a quote',
    reason: 'quote-type',
    without: 'accepted',
    lies: { attested: () => ({ type: 0x8017 }) },
  },
  {
    name: 'a certification of a key instead of a quote',
    reason: 'quote-type',
    without: 'quote-malformed',
    lies: {
      attested: ({ qualifiedSigner }) => ({
        type: 0x8017,
        body: concatBytes(sized(nameOf(otherKey.area)), sized(qualifiedSigner)),
      }),
    },
  },
  {
    name: 'a quote by a key of the owner hierarchy',
    reason: 'quote-qualified-signer',
    without: 'accepted',
    lies: {
      attested: () => ({
        qualifiedSigner: concatBytes(
          Uint8Array.of(0, 0x0b),
          digest('sha256', u32(0x40000001), nameOf(otherKey.area)),
        ),
      }),
    },
  },
  {
    name: 'a quote for another exchange',
    reason: 'quote-qualifying-data',
    without: 'accepted',
    lies: { attested: () => ({ extraData: new Uint8Array(32) }) },
  },
  {
    name: 'a quote with the first half of the qualifying data',
    reason: 'quote-qualifying-data',
    without: 'accepted',
    lies: { attested: ({ extraData }) => ({ extraData: extraData.subarray(0, 16) }) },
  },
  {
    name: 'a quote that is cut short',
    reason: 'quote-malformed',
    without: 'broken',
    lies: { attestedBytes: cut },
  },
  {
    name: 'a quote with a byte after it',
    reason: 'quote-malformed',
    without: 'accepted',
    check: wholeCheck,
    lies: { attestedBytes: trail },
  },
  {
    name: 'a quote with a million PCR banks',
    reason: 'quote-malformed',
    without: 'broken',
    lies: { attested: () => ({ body: concatBytes(u32(1_000_000), new Uint8Array(64)) }) },
  },
  {
    name: 'a quote over two banks',
    reason: 'quote-pcr-banks',
    without: 'accepted',
    lies: {
      attested: ({ selections }) => ({
        selections: [...selections, { bank: 'sha1', indexes: [0] }],
      }),
    },
  },
  {
    name: 'a quote over no bank',
    reason: 'quote-pcr-banks',
    without: 'broken',
    lies: { attested: () => ({ selections: [] }) },
  },
  {
    name: 'a quote over another bank',
    reason: 'quote-pcr-selection',
    without: 'accepted',
    lies: {
      attested: ({ selections }) => ({
        selections: selections.map(({ indexes }) => ({ bank: 'sha1' as const, indexes })),
      }),
    },
  },
  {
    name: 'a quote over other registers, relabelled',
    reason: 'quote-pcr-selection',
    without: 'accepted',
    lies: {
      attested: () => ({
        selections: [{ bank: 'sha256', indexes: [10, 11, 12, 13, 15, 16, 17, 18, 19, 23] }],
      }),
    },
  },
  {
    name: 'a quote over fewer registers',
    reason: 'quote-pcr-selection',
    without: 'accepted',
    lies: { attested: () => ({ selections: [{ bank: 'sha256', indexes: [0, 1, 2] }] }) },
  },
  {
    name: 'a quote over more registers',
    reason: 'quote-pcr-selection',
    without: 'accepted',
    lies: {
      attested: ({ selections }) => ({
        selections: selections.map(({ bank, indexes }) => ({ bank, indexes: [...indexes, 16] })),
      }),
    },
  },
  {
    name: 'fewer PCR values than registers',
    reason: 'quote-pcr-count',
    without: 'accepted',
    lies: {
      pcrValues: (values) => values.slice(1),
      attested: ({ quotedValues }) => ({ quotedValues: quotedValues.slice(1) }),
    },
  },
  {
    name: 'more PCR values than registers',
    reason: 'quote-pcr-count',
    without: 'accepted',
    lies: {
      pcrValues: (values) => [...values, new Uint8Array(32)],
      attested: ({ quotedValues }) => ({ quotedValues: [...quotedValues, new Uint8Array(32)] }),
    },
  },
  {
    name: 'PCR values cut elsewhere, with the same digest',
    reason: 'quote-pcr-size',
    without: 'accepted',
    lies: {
      pcrValues: ([first = new Uint8Array(0), second = new Uint8Array(0), ...rest]) => [
        first.subarray(0, 31),
        concatBytes(first.subarray(31), second),
        ...rest,
      ],
    },
  },
  {
    name: 'a PCR value other than the one quoted',
    reason: 'quote-pcr-digest',
    without: 'accepted',
    lies: { pcrValues: (values) => values.with(3, new Uint8Array(32).fill(0xee)) },
  },
]

const clocks: readonly Forgery[] = [
  {
    name: 'a firmware version other than the one quoted',
    reason: 'firmware-claim',
    without: 'accepted',
    lies: {
      evidence: {
        claims: {
          manufacturer: 0x41535359,
          firmwareVersion: firmwareVersion + 1n,
          model: 'Forged',
        },
      },
    },
  },
  {
    name: 'older firmware than the last time',
    reason: 'firmware-rolled-back',
    without: 'accepted',
    record: { ...honestPolicy, clock: { ...seen, firmwareVersion: firmwareVersion + 1n } },
  },
  {
    name: 'fewer resets than the last time',
    reason: 'clock-reset-count-fell',
    without: 'accepted',
    record: { ...honestPolicy, clock: { ...seen, resetCount: 41 } },
  },
  {
    name: 'fewer restarts than the last time',
    reason: 'clock-restart-count-fell',
    without: 'accepted',
    record: { ...honestPolicy, clock: { ...seen, restartCount: 5 } },
  },
  {
    name: 'an earlier clock than the last time',
    reason: 'clock-fell',
    without: 'accepted',
    record: { ...honestPolicy, clock: { ...seen, clock: 1_000_001n } },
  },
]

/** All of them. */
export const forgeries: readonly Forgery[] = [
  ...messages,
  ...standing,
  ...endorsementKeys,
  ...certificates,
  ...issuers,
  ...attestationKeys,
  ...proofs,
  ...quotes,
  ...clocks,
]

/** What the forger does when it tells no lie, in every way in which a server lets it in. */
export const honest: readonly Omit<Forgery, 'reason' | 'without'>[] = [
  { name: 'by its certificate' },
  { name: 'by its certificate through an intermediate', lies: throughIntermediate() },
  { name: 'by the inventory', server: { allow: 'inventory' }, record: honestPolicy },
  {
    name: 'by the inventory without a certificate',
    lies: { chain: () => [] },
    server: { allow: 'inventory' },
    record: honestPolicy,
  },
  {
    name: 'by the inventory where no authority is installed',
    lies: { certificate: { signingKey: mallory.privateKey } },
    server: { allow: 'inventory', endorsementAuthorities: [] },
    record: honestPolicy,
  },
  {
    name: 'by an expired certificate of a known node',
    lies: { certificate: { notAfter: '2026-05-31T00:00:00Z' } },
    record: honestPolicy,
  },
  { name: 'again, with the clock of the last time', record: { ...honestPolicy, clock: seen } },
  {
    name: 'after a reset, with an earlier clock and fewer restarts',
    record: {
      ...honestPolicy,
      clock: { ...seen, resetCount: 39, restartCount: 9, clock: 2_000_000n },
    },
  },
  {
    name: 'with newer firmware',
    record: { ...honestPolicy, clock: { ...seen, firmwareVersion: firmwareVersion - 1n } },
  },
  {
    name: 'with a badly encoded serial number',
    lies: { certificate: { serial: Uint8Array.of(0, 0, 7) } },
  },
  {
    name: 'with a certificate without key usages',
    lies: { certificate: { extensions: [ecc.constraints, ecc.names] } },
  },
]

/** The clock of a TPMS_ATTEST, a little later: its last byte is at 4 + 2 + 2 + 34 + 2 + 32 + 7. */
function raisedClock(attested: Uint8Array): Uint8Array {
  const at = 83
  return attested.with(at, (attested[at] ?? 0) ^ 1)
}
