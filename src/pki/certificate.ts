import { hash, type KeyObject } from 'node:crypto'
import { equalBytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import {
  type DerElement,
  type DerOptions,
  DerReader,
  derTag,
  readAscii,
  readBitString,
  readBoolean,
  readElement,
  readIntegerBytes,
  readNested,
  readOctetAlignedBits,
  readOid,
  readSmallInteger,
  readTime,
} from './der.ts'
import { nameText, parseName } from './name.ts'
import { publicKeyBits, publicKeyObject } from './public-key.ts'
import {
  isSignedBy,
  parseSignatureAlgorithm,
  type SignatureAlgorithm,
} from './signature-algorithm.ts'

/** Longest certificate that is read, in bytes. One with post-quantum keys and signatures has some 20 KB. */
const maxCertificateBytes = 64 * 1024

/** Bits of {@link Certificate.keyUsage} (RFC 5280 §4.2.1.3). */
export const keyUsageBit = {
  digitalSignature: 1 << 0,
  contentCommitment: 1 << 1,
  keyEncipherment: 1 << 2,
  dataEncipherment: 1 << 3,
  keyAgreement: 1 << 4,
  keyCertSign: 1 << 5,
  cRLSign: 1 << 6,
  encipherOnly: 1 << 7,
  decipherOnly: 1 << 8,
} as const

/** Identifiers of the extensions that are read (RFC 5280 §4.2.1). */
export const extensionOid = {
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  inhibitAnyPolicy: '2.5.29.54',
} as const

/** Identifiers of extended key usages (RFC 5280 §4.2.1.12). */
export const extendedKeyUsage = {
  any: '2.5.29.37.0',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const

export interface Extension {
  readonly oid: string
  readonly critical: boolean
  /** What the OCTET STRING holds. */
  readonly value: Uint8Array
}

/** A parsed X.509 certificate (RFC 5280 §4.1). Its arrays are views of the bytes it was parsed from. */
export interface Certificate {
  /** The certificate alone, even where bytes followed it. */
  readonly raw: Uint8Array
  /** What is signed. */
  readonly tbs: Uint8Array
  readonly version: 1 | 2 | 3
  /** Decimal. */
  readonly serialNumber: string
  /** DER of the Name. */
  readonly issuer: Uint8Array
  /** DER of the Name. */
  readonly subject: Uint8Array
  /** For people: `C=US, O=SPIRE`. */
  readonly subjectText: string
  /** Unix time, inclusive. */
  readonly notBeforeSeconds: number
  /** Unix time, inclusive. */
  readonly notAfterSeconds: number
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** A set of {@link keyUsageBit}; undefined without the extension. */
  readonly keyUsage: number | undefined
  /** Identifiers; undefined without the extension. */
  readonly extendedKeyUsage: readonly string[] | undefined
  /** Undefined without the extension. */
  readonly basicConstraints: BasicConstraints | undefined
  readonly subjectKeyId: Uint8Array | undefined
  readonly authorityKeyId: Uint8Array | undefined
  /** Of the subject's alternative names, in order. */
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  /** DER of each Name among the subject's alternative names. */
  readonly directoryNames: readonly Uint8Array[]
  /** Tags of all alternative names, in order: 0x82 is a DNS name, 0x86 a URI (RFC 5280 §4.2.1.6). */
  readonly alternativeNameTags: readonly number[]
  /** No identifier twice. */
  readonly extensions: readonly Extension[]
  /** Object identifier of the signature's algorithm. */
  readonly signatureAlgorithm: string
  /** DER of the AlgorithmIdentifier with its parameters. */
  readonly signatureAlgorithmIdentifier: Uint8Array
  readonly signature: Uint8Array
}

export interface BasicConstraints {
  readonly isCa: boolean
  /** How many intermediate certificates may follow; undefined: any number. */
  readonly pathLength: number | undefined
}

/**
 * Reads one certificate. Only its form is judged: not its signature, its validity or what it may be used for.
 * A default value that is written out, which DER forbids, is accepted because many CAs do it.
 *
 * @throws SyntaxError that names what is not well-formed.
 */
export function parseCertificate(der: Uint8Array, options?: DerOptions): Certificate {
  if (der.length > maxCertificateBytes) {
    throw new SyntaxError(`invalid certificate: longer than ${maxCertificateBytes} bytes`)
  }
  try {
    return readCertificate(readElement(der, options))
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new SyntaxError(`invalid certificate: ${cause.message}`, { cause })
  }
}

/** Splits DER certificates that stand one after the other, as the Workload API sends them. */
export function splitCertificates(concatenated: Uint8Array): Uint8Array[] {
  const reader = new DerReader(concatenated)
  const found: Uint8Array[] = []
  while (!reader.done) found.push(reader.expect(derTag.sequence).raw)
  return found
}

/**
 * Checks that the holder of `issuerPublicKey` (a SubjectPublicKeyInfo or a KeyObject) signed `certificate`.
 *
 * @throws AssayError `unauthenticated`, reason `signature-invalid`,
 * `signature-algorithm-not-allowed` or `key-not-allowed`.
 */
export function verifyCertificateSignature(
  certificate: Certificate,
  issuerPublicKey: KeyObject | Uint8Array,
): void {
  const key =
    issuerPublicKey instanceof Uint8Array
      ? issuerKey(certificate, issuerPublicKey)
      : issuerPublicKey
  const signed = {
    algorithm: signatureAlgorithmOf(certificate),
    message: certificate.tbs,
    signature: certificate.signature,
  }
  if (!isSignedBy(key, signed)) {
    throw refuseSignature(
      certificate,
      'signature-invalid',
      "its signature is not by its issuer's key",
    )
  }
}

/** SHA-1 of the key bits of a SubjectPublicKeyInfo: the key identifier of RFC 5280 §4.2.1.2, method 1. */
export function subjectKeyId(publicKey: Uint8Array): Uint8Array {
  return new Uint8Array(hash('sha1', publicKeyBits(publicKey), 'buffer'))
}

/** A certificate for a message: its subject, or its first URI, and its serial number. */
export function describe(certificate: Certificate): string {
  const name = certificate.uris[0] ?? certificate.subjectText
  return `${JSON.stringify(name.slice(0, 256))} (serial ${certificate.serialNumber})`
}

function issuerKey(certificate: Certificate, spki: Uint8Array): KeyObject {
  try {
    return publicKeyObject(spki)
  } catch (cause) {
    throw refuseSignature(certificate, 'key-not-allowed', "its issuer's key cannot be read", cause)
  }
}

function signatureAlgorithmOf(certificate: Certificate): SignatureAlgorithm {
  try {
    return parseSignatureAlgorithm(certificate.signatureAlgorithmIdentifier)
  } catch (cause) {
    const why = `its signature algorithm ${certificate.signatureAlgorithm} is not allowed`
    throw refuseSignature(certificate, 'signature-algorithm-not-allowed', why, cause)
  }
}

function refuseSignature(
  certificate: Certificate,
  reason: string,
  why: string,
  cause?: unknown,
): AssayError {
  const message = `cannot accept certificate ${describe(certificate)}: ${why}`
  return new AssayError('unauthenticated', message, { reason, cause })
}

function readCertificate(element: DerElement): Certificate {
  if (element.tag !== derTag.sequence) throw new SyntaxError('it is not a sequence')
  const outer = element.reader()
  const tbs = outer.expect(derTag.sequence)
  const outerAlgorithm = outer.expect(derTag.sequence)
  const signature = readOctetAlignedBits(outer.next())
  outer.end()

  const fields = tbs.reader()
  const version = readVersion(fields.optional(0xa0))
  const serialNumber = readSerialNumber(fields.next())
  const innerAlgorithm = fields.expect(derTag.sequence)
  if (!equalBytes(innerAlgorithm.raw, outerAlgorithm.raw)) {
    throw new SyntaxError('the signed algorithm is not the one of the signature')
  }
  const issuer = fields.expect(derTag.sequence)
  const validity = fields.expect(derTag.sequence).reader()
  const notBeforeSeconds = readTime(validity.next())
  const notAfterSeconds = readTime(validity.next())
  validity.end()
  const subject = fields.expect(derTag.sequence)
  const publicKey = fields.expect(derTag.sequence)
  if (version > 1) {
    fields.optional(0x81)
    fields.optional(0x82)
  }
  const extensions = readExtensions(version === 3 ? fields.optional(0xa3) : undefined)
  fields.end()

  const options = { lenient: element.lenient }
  const alternativeNames = readAlternativeNames(extensions, options)
  return {
    raw: element.raw,
    tbs: tbs.raw,
    version,
    serialNumber,
    issuer: issuer.raw,
    subject: subject.raw,
    subjectText: nameText(parseName(subject.raw, options)),
    notBeforeSeconds,
    notAfterSeconds,
    publicKey: publicKey.raw,
    keyUsage: readKeyUsage(extensions, options),
    extendedKeyUsage: readExtendedKeyUsage(extensions, options),
    basicConstraints: readBasicConstraints(extensions, options),
    subjectKeyId: readSubjectKeyId(extensions, options),
    authorityKeyId: readAuthorityKeyId(extensions, options),
    ...alternativeNames,
    extensions,
    signatureAlgorithm: readOid(outerAlgorithm.reader().next()),
    signatureAlgorithmIdentifier: outerAlgorithm.raw,
    signature,
  }
}

function readVersion(element: DerElement | undefined): 1 | 2 | 3 {
  if (element === undefined) return 1
  const version = readSmallInteger(readNested(element)) + 1
  if (version === 1 || version === 2 || version === 3) return version
  throw new SyntaxError(`version ${version} is unknown`)
}

function readSerialNumber(element: DerElement): string {
  const bytes = readIntegerBytes(element)
  if (bytes.length > 21 || (bytes[0] ?? 0) >= 0x80) {
    // RFC 5280 §4.1.2.2 wants them positive, of at most 20 bytes; some makers let the sign bit slip.
    if (!element.lenient || bytes.length > 64) {
      throw new SyntaxError('the serial number is negative or longer than 20 bytes')
    }
  }
  const magnitude = BigInt(`0x${bytes.toHex()}`)
  return magnitude.toString()
}

function readExtensions(element: DerElement | undefined): Extension[] {
  if (element === undefined) return []
  const list = readNested(element)
  if (list.tag !== derTag.sequence) throw new SyntaxError('the extensions are not a sequence')
  const reader = list.reader()
  const extensions: Extension[] = []
  const seen = new Set<string>()
  do {
    const fields = reader.expect(derTag.sequence).reader()
    const oid = readOid(fields.next())
    const flag = fields.optional(derTag.boolean)
    const critical = flag !== undefined && readBoolean(flag)
    const value = fields.expect(derTag.octetString).content
    fields.end()
    if (seen.has(oid)) throw new SyntaxError(`extension ${oid} is there twice`)
    seen.add(oid)
    extensions.push({ oid, critical, value })
  } while (!reader.done)
  return extensions
}

/** The one element an extension holds, or undefined without the extension. */
function extensionElement(
  extensions: readonly Extension[],
  oid: string,
  options: DerOptions,
): DerElement | undefined {
  const extension = extensions.find((candidate) => candidate.oid === oid)
  if (extension === undefined) return undefined
  const reader = new DerReader(extension.value, options)
  const element = reader.next()
  reader.end()
  return element
}

function readKeyUsage(extensions: readonly Extension[], options: DerOptions): number | undefined {
  const element = extensionElement(extensions, extensionOid.keyUsage, options)
  if (element === undefined) return undefined
  const { bytes } = readBitString(element)
  let usage = 0
  for (let bit = 0; bit < 9; bit++) {
    if (((bytes[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) !== 0) usage |= 1 << bit
  }
  return usage
}

function readExtendedKeyUsage(
  extensions: readonly Extension[],
  options: DerOptions,
): string[] | undefined {
  const reader = extensionElement(extensions, extensionOid.extendedKeyUsage, options)?.reader()
  if (reader === undefined) return undefined
  const usages: string[] = []
  do usages.push(readOid(reader.next()))
  while (!reader.done)
  return usages
}

function readBasicConstraints(
  extensions: readonly Extension[],
  options: DerOptions,
): BasicConstraints | undefined {
  const fields = extensionElement(extensions, extensionOid.basicConstraints, options)?.reader()
  if (fields === undefined) return undefined
  const flag = fields.optional(derTag.boolean)
  const isCa = flag !== undefined && readBoolean(flag)
  const length = fields.optional(derTag.integer)
  fields.end()
  if (length !== undefined && !isCa) throw new SyntaxError('a path length is given without a CA')
  return { isCa, pathLength: length === undefined ? undefined : readSmallInteger(length) }
}

function readSubjectKeyId(
  extensions: readonly Extension[],
  options: DerOptions,
): Uint8Array | undefined {
  const element = extensionElement(extensions, extensionOid.subjectKeyId, options)
  if (element !== undefined && element.tag !== derTag.octetString) {
    throw new SyntaxError('the subject key identifier is not an octet string')
  }
  return element?.content
}

function readAuthorityKeyId(
  extensions: readonly Extension[],
  options: DerOptions,
): Uint8Array | undefined {
  const element = extensionElement(extensions, extensionOid.authorityKeyId, options)
  return element?.reader().optional(0x80)?.content
}

type AlternativeNames = Pick<
  Certificate,
  'uris' | 'dnsNames' | 'directoryNames' | 'alternativeNameTags'
>

/** Reads GeneralNames (RFC 5280 §4.2.1.6). @throws SyntaxError when there is none or one is not ASCII. */
export function readGeneralNames(element: DerElement): AlternativeNames {
  if (element.tag !== derTag.sequence) throw new SyntaxError('alternative names are not a sequence')
  const reader = element.reader()
  const uris: string[] = []
  const dnsNames: string[] = []
  const directoryNames: Uint8Array[] = []
  const alternativeNameTags: number[] = []
  do {
    const name = reader.next()
    alternativeNameTags.push(name.tag)
    if (name.tag === 0x86) uris.push(readAscii(name))
    else if (name.tag === 0x82) dnsNames.push(readAscii(name))
    else if (name.tag === 0xa4) directoryNames.push(readNested(name).raw)
    else if ((name.tag & 0xc0) !== 0x80) throw new SyntaxError('an alternative name has no kind')
  } while (!reader.done)
  return { uris, dnsNames, directoryNames, alternativeNameTags }
}

const noAlternativeNames: AlternativeNames = {
  uris: [],
  dnsNames: [],
  directoryNames: [],
  alternativeNameTags: [],
}

function readAlternativeNames(
  extensions: readonly Extension[],
  options: DerOptions,
): AlternativeNames {
  const element = extensionElement(extensions, extensionOid.subjectAltName, options)
  return element === undefined ? noAlternativeNames : readGeneralNames(element)
}
