import { utf8Bytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import { extensionOid, readGeneralNames } from './certificate.ts'
import {
  bitString,
  contextConstructed,
  contextPrimitive,
  type DerElement,
  type DerReader,
  derTag,
  integer,
  octetString,
  oid,
  readBoolean,
  readElement,
  readOctetAlignedBits,
  readOid,
  readSmallInteger,
  sequence,
  set,
} from './der.ts'
import { encodeName, type NameAttribute, parseName } from './name.ts'
import { checkKeyStrength, describePublicKey, newPublicKeyObject } from './public-key.ts'
import {
  type HashName,
  isSignedBy,
  parseSignatureAlgorithm,
  signatureAlgorithmFor,
} from './signature-algorithm.ts'

/** Longest request that is read, in bytes. */
const maxCsrBytes = 32 * 1024
const extensionRequest = '1.2.840.113549.1.9.14'

/** A parsed PKCS #10 certification request (RFC 2986). Its arrays are views of the bytes it came from. */
export interface Csr {
  readonly raw: Uint8Array
  /** What is signed. */
  readonly tbs: Uint8Array
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** DER of the Name. */
  readonly subject: Uint8Array
  readonly subjectAttributes: readonly NameAttribute[]
  /** Of the requested subject alternative names, in order. */
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  /** DER of the AlgorithmIdentifier. */
  readonly signatureAlgorithmIdentifier: Uint8Array
  readonly signature: Uint8Array
}

/**
 * Reads a request; what it asks for other than key, subject and alternative names is passed over.
 *
 * @throws SyntaxError that names what is not well-formed.
 */
export function parseCsr(der: Uint8Array): Csr {
  if (der.length > maxCsrBytes)
    throw new SyntaxError(`invalid CSR: longer than ${maxCsrBytes} bytes`)
  try {
    return readCsr(readElement(der))
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new SyntaxError(`invalid CSR: ${cause.message}`, { cause })
  }
}

/**
 * Checks that the requester holds the private key, and that the key is one an SVID may be made of: P-256,
 * P-384, P-521, or RSA of 2048 to 8192 bits. The key is judged before any arithmetic is done with it.
 *
 * @throws AssayError `invalid-argument`, reason `csr-key-not-allowed` or `csr-signature-invalid`.
 */
export function verifyCsr(csr: Csr): void {
  let signed: boolean
  try {
    checkKeyStrength(describePublicKey(csr.publicKey))
    const algorithm = parseSignatureAlgorithm(csr.signatureAlgorithmIdentifier)
    const key = newPublicKeyObject(csr.publicKey)
    signed = isSignedBy(key, { algorithm, message: csr.tbs, signature: csr.signature })
  } catch (cause) {
    if (!(cause instanceof SyntaxError || cause instanceof RangeError)) throw cause
    throw refuse('csr-key-not-allowed', cause.message, cause)
  }
  if (!signed) {
    throw refuse('csr-signature-invalid', 'its signature is not by the key it names')
  }
}

export interface CsrTemplate {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** Signs with the private key: ECDSA in DER, RSA with PKCS #1 v1.5 padding. */
  readonly sign: (tbs: Uint8Array, hash: HashName) => Uint8Array
  /** AlgorithmIdentifier of the signature, DER; when absent, that of {@link createCsr} for the key. */
  readonly algorithm?: Uint8Array
  readonly subject?: readonly NameAttribute[]
  readonly uris?: readonly string[]
  readonly dnsNames?: readonly string[]
}

/** Makes a request, signed with SHA-256 for RSA and P-256, SHA-384 for P-384, SHA-512 for P-521. */
export function createCsr(template: CsrTemplate): Uint8Array {
  const { publicKey, sign, subject = [], uris = [], dnsNames = [] } = template
  const { identifier, hash } =
    template.algorithm === undefined
      ? signatureAlgorithmFor(describePublicKey(publicKey))
      : { identifier: template.algorithm, hash: 'sha256' as const }
  const names = [
    ...uris.map((uri) => contextPrimitive(6, utf8Bytes(uri))),
    ...dnsNames.map((name) => contextPrimitive(2, utf8Bytes(name))),
  ]
  const extensions = sequence(
    sequence(oid(extensionOid.subjectAltName), octetString(sequence(...names))),
  )
  const attributes = names.length === 0 ? [] : [sequence(oid(extensionRequest), set(extensions))]
  const tbs = sequence(
    integer(0n),
    encodeName(subject),
    publicKey,
    contextConstructed(0, ...attributes),
  )
  return sequence(tbs, identifier, bitString(sign(tbs, hash)))
}

function refuse(reason: string, why: string, cause?: unknown): AssayError {
  return new AssayError('invalid-argument', `cannot accept the CSR: ${why}`, { reason, cause })
}

function readCsr(element: DerElement): Csr {
  if (element.tag !== derTag.sequence) throw new SyntaxError('it is not a sequence')
  const outer = element.reader()
  const tbs = outer.expect(derTag.sequence)
  const algorithm = outer.expect(derTag.sequence)
  const signature = readOctetAlignedBits(outer.next())
  outer.end()

  const fields = tbs.reader()
  const version = readSmallInteger(fields.next())
  if (version !== 0) throw new SyntaxError(`version ${version} is unknown`)
  const subject = fields.expect(derTag.sequence).raw
  const publicKey = fields.expect(derTag.sequence).raw
  const names = readRequestedNames(fields.expect(0xa0).reader())
  fields.end()
  return {
    raw: element.raw,
    tbs: tbs.raw,
    publicKey,
    subject,
    subjectAttributes: parseName(subject),
    ...names,
    signatureAlgorithmIdentifier: algorithm.raw,
    signature,
  }
}

function readRequestedNames(attributes: DerReader): Pick<Csr, 'uris' | 'dnsNames'> {
  let found: Pick<Csr, 'uris' | 'dnsNames'> | undefined
  while (!attributes.done) {
    const attribute = attributes.expect(derTag.sequence).reader()
    const type = readOid(attribute.next())
    const values = attribute.expect(derTag.set).reader()
    attribute.end()
    if (type !== extensionRequest) continue
    const extensions = values.expect(derTag.sequence).reader()
    values.end()
    while (!extensions.done) {
      const fields = extensions.expect(derTag.sequence).reader()
      const name = readOid(fields.next())
      const critical = fields.optional(derTag.boolean)
      if (critical !== undefined) readBoolean(critical)
      const value = fields.expect(derTag.octetString).content
      fields.end()
      if (name !== extensionOid.subjectAltName) continue
      if (found !== undefined) throw new SyntaxError('alternative names are asked for twice')
      const { uris, dnsNames } = readGeneralNames(readElement(value))
      found = { uris, dnsNames }
    }
  }
  return found ?? { uris: [], dnsNames: [] }
}
