import { concatBytes, utf8Bytes } from '#base/bytes.ts'
import { subjectKeyId } from '#pki/certificate.ts'
import {
  bitString,
  boolean,
  contextConstructed,
  contextPrimitive,
  integer,
  octetString,
  oid,
  sequence,
  time,
} from '#pki/der.ts'
import { attributeType, encodeName, type NameAttribute } from '#pki/name.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { CertificateProfile, KeyUsage } from './profile.ts'

/** How long before the moment of issue a certificate begins, so that clocks that lag still accept it. */
export const backdateSeconds = 10

/** Longest CommonName, in characters (RFC 5280 appendix A, ub-common-name). */
const maxCommonName = 64

/** What differs from one certificate of a profile to the next. */
export interface CertificateFields {
  /** Positive, big-endian, at most 20 bytes (RFC 5280 §4.1.2.2). */
  readonly serialNumber: Uint8Array
  readonly notBeforeSeconds: number
  readonly notAfterSeconds: number
  readonly spiffeId: SpiffeId
  readonly dnsNames: readonly string[]
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
}

/** What is the same in everything one authority signs. */
export interface CertificateIssuer {
  /** Its subject: a Name, DER. */
  readonly name: Uint8Array
  /** Its SubjectKeyIdentifier extension; undefined makes no AuthorityKeyIdentifier (a root of its own). */
  readonly keyId: Uint8Array | undefined
  /** AlgorithmIdentifier of what its key signs with, DER. */
  readonly signatureAlgorithm: Uint8Array
}

/**
 * Certificates of one profile by one issuer, with everything that does not change encoded once. Pure but for
 * remembering the last dates it encoded.
 */
export class CertificateTemplate {
  readonly #profile: CertificateProfile
  readonly #head: Uint8Array
  readonly #issuerName: Uint8Array
  readonly #fixedExtensions: Uint8Array
  readonly #authorityKeyId: Uint8Array
  readonly #lastExtensions: Uint8Array
  readonly #subject: readonly NameAttribute[]
  readonly #encodedSubject: Uint8Array
  readonly #signatureAlgorithm: Uint8Array
  readonly #notBefore = rememberLast(time)
  readonly #notAfter = rememberLast(time)

  constructor(
    profile: CertificateProfile,
    options: {
      readonly issuer: CertificateIssuer
      /** Without the CommonName, which the first DNS name gives. */
      readonly subject: readonly NameAttribute[]
      /** Whole extensions, DER, that come after all others. */
      readonly lastExtensions?: readonly Uint8Array[]
    },
  ) {
    const { issuer, subject, lastExtensions = [] } = options
    this.#profile = profile
    this.#subject = subject
    this.#encodedSubject = encodeName(subject)
    this.#signatureAlgorithm = issuer.signatureAlgorithm
    this.#head = version3
    this.#issuerName = issuer.name
    this.#fixedExtensions = concatBytes(
      extension(extensionId.keyUsage, { critical: true, value: encodeKeyUsage(profile.keyUsage) }),
      ...(profile.tlsServerAndClient
        ? [extension(extensionId.extendedKeyUsage, { critical: false, value: serverAndClient })]
        : []),
      extension(extensionId.basicConstraints, {
        critical: true,
        value: encodeBasicConstraints(profile),
      }),
    )
    this.#lastExtensions = concatBytes(...lastExtensions)
    this.#authorityKeyId =
      issuer.keyId === undefined
        ? new Uint8Array()
        : extension(extensionId.authorityKeyId, {
            critical: false,
            value: sequence(contextPrimitive(0, issuer.keyId)),
          })
  }

  /** The TBSCertificate (RFC 5280 §4.1), DER: what is signed. */
  toBeSigned(fields: CertificateFields): Uint8Array {
    const [commonName = ''] = fields.dnsNames
    const named = commonName !== '' && commonName.length <= maxCommonName
    const subject = named
      ? encodeName([...this.#subject, { type: attributeType.commonName, value: commonName }])
      : this.#encodedSubject
    return sequence(
      this.#head,
      integer(fields.serialNumber),
      this.#signatureAlgorithm,
      this.#issuerName,
      sequence(this.#notBefore(fields.notBeforeSeconds), this.#notAfter(fields.notAfterSeconds)),
      subject,
      fields.publicKey,
      contextConstructed(
        3,
        sequence(
          this.#fixedExtensions,
          subjectKeyIdHead,
          subjectKeyId(fields.publicKey),
          this.#authorityKeyId,
          // Critical exactly when nothing else names the subject (RFC 5280 §4.2.1.6, X509-SVID §2).
          extension(extensionId.subjectAltName, {
            critical: this.#subject.length === 0 && !named,
            value: encodeNames(fields),
          }),
          this.#lastExtensions,
        ),
      ),
    )
  }

  /** The Certificate, DER. `signature` is as X.509 wants it: for ECDSA a DER sequence. */
  certificate(toBeSigned: Uint8Array, signature: Uint8Array): Uint8Array {
    return sequence(toBeSigned, this.#signatureAlgorithm, bitString(signature))
  }

  get profile(): CertificateProfile {
    return this.#profile
  }
}

const extensionId = {
  subjectKeyId: oid('2.5.29.14'),
  keyUsage: oid('2.5.29.15'),
  subjectAltName: oid('2.5.29.17'),
  basicConstraints: oid('2.5.29.19'),
  authorityKeyId: oid('2.5.29.35'),
  extendedKeyUsage: oid('2.5.29.37'),
}

/** All of the extension but the 20 bytes of a SHA-1 identifier, which come last. */
const subjectKeyIdHead = extension(extensionId.subjectKeyId, {
  critical: false,
  value: octetString(new Uint8Array(20)),
}).subarray(0, -20)

/** serverAuth and clientAuth. */
const serverAndClient = sequence(oid('1.3.6.1.5.5.7.3.1'), oid('1.3.6.1.5.5.7.3.2'))

const version3 = contextConstructed(0, integer(2n))

/** Bit numbers of RFC 5280 §4.2.1.3; bit 0 is the highest. */
const keyUsageBit: Readonly<Record<KeyUsage, number>> = {
  digitalSignature: 0,
  keyEncipherment: 2,
  keyAgreement: 4,
  keyCertSign: 5,
  cRLSign: 6,
}

function encodeBasicConstraints({ isCa, pathLength }: CertificateProfile): Uint8Array {
  if (!isCa) return sequence()
  return sequence(boolean(true), ...(pathLength === undefined ? [] : [integer(BigInt(pathLength))]))
}

function encodeKeyUsage(usages: readonly KeyUsage[]): Uint8Array {
  let bits = 0
  for (const usage of usages) bits |= 0x80 >> keyUsageBit[usage]
  // A named bit list ends with its last bit that is set (X.690 §11.2.2).
  const unusedBits = 31 - Math.clz32(bits & -bits)
  return bitString(Uint8Array.of(bits), unusedBits)
}

/** GeneralNames: DNS names in the order given, then the one URI (X509-SVID §2). */
function encodeNames({ spiffeId, dnsNames }: CertificateFields): Uint8Array {
  const uri = contextPrimitive(6, utf8Bytes(spiffeId))
  if (dnsNames.length === 0) return sequence(uri)
  return sequence(...dnsNames.map((name) => contextPrimitive(2, utf8Bytes(name))), uri)
}

function extension(
  id: Uint8Array,
  { critical, value }: { critical: boolean; value: Uint8Array },
): Uint8Array {
  return critical
    ? sequence(id, boolean(true), octetString(value))
    : sequence(id, octetString(value))
}

/** Certificates issued in one second share their dates. */
function rememberLast(encode: (epochSeconds: number) => Uint8Array): typeof encode {
  let last: number | undefined
  let encoded = new Uint8Array()
  return (epochSeconds) => {
    if (epochSeconds !== last) {
      encoded = encode(epochSeconds) as Uint8Array<ArrayBuffer>
      last = epochSeconds
    }
    return encoded
  }
}
