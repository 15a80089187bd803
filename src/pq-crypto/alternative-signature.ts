import type { Certificate, Extension } from '#pki/certificate.ts'
import {
  bitString,
  children,
  contextConstructed,
  type DerElement,
  derTag,
  octetString,
  oid,
  readElement,
  readNested,
  readOctetAlignedBits,
  readOid,
  sequence,
} from '#pki/der.ts'
import {
  isMlDsaSignedBy,
  type MlDsaParameterSet,
  type MlDsaPublicKey,
  mlDsaAlgorithm,
  parseMlDsaAlgorithm,
  parseMlDsaPublicKey,
} from './ml-dsa.ts'

// Alternative signatures of ITU-T X.509 (10/2019): a second key and a second signature of a certificate, in
// extensions that whoever does not know them passes over.

/** ITU-T X.509 (10/2019) §9.8. None of them is ever critical here, or every other verifier would refuse. */
export const alternativeOid = {
  /** `SubjectAltPublicKeyInfo`: the subject's alternative key, as a SubjectPublicKeyInfo. */
  subjectAltPublicKeyInfo: '2.5.29.72',
  /** `AltSignatureAlgorithm`: an AlgorithmIdentifier. */
  altSignatureAlgorithm: '2.5.29.73',
  /** `AltSignatureValue`: a BIT STRING. */
  altSignatureValue: '2.5.29.74',
} as const

const subjectAltPublicKeyInfo = oid(alternativeOid.subjectAltPublicKeyInfo)
const altSignatureAlgorithm = oid(alternativeOid.altSignatureAlgorithm)
const altSignatureValue = oid(alternativeOid.altSignatureValue)

/** The tag of a TBSCertificate's extensions and of its version (RFC 5280 §4.1). */
const extensionsTag = 0xa3
const versionTag = 0xa0

/** The extension that gives a CA its ML-DSA key, DER. `publicKey` is a SubjectPublicKeyInfo. */
export const altPublicKeyExtension = (publicKey: Uint8Array): Uint8Array =>
  sequence(subjectAltPublicKeyInfo, octetString(publicKey))

/** The extension that says what the issuer's alternative signature is made with, DER. */
export const altAlgorithmExtension = (parameterSet: MlDsaParameterSet): Uint8Array =>
  sequence(altSignatureAlgorithm, octetString(mlDsaAlgorithm[parameterSet]))

/**
 * What the alternative signature is over (ITU-T X.509 (10/2019) §7.2.2): the TBSCertificate without its
 * `signature` field and without the alternative signature itself, if that is there already. The classical key,
 * the names and all other extensions are in it.
 *
 * @throws SyntaxError when `tbs` is not a TBSCertificate of version 3.
 */
export function alternativeMessage(tbs: Uint8Array): Uint8Array {
  const fields = children(readElement(tbs))
  if (fields[0]?.tag !== versionTag || fields.length < 8) {
    throw new SyntaxError('a certificate without extensions has no alternative signature')
  }
  const [version, serialNumber, _signature, ...rest] = fields as [DerElement, ...DerElement[]]
  return sequence(
    version.raw,
    (serialNumber as DerElement).raw,
    ...rest.map((field) =>
      field.tag === extensionsTag
        ? extensions(
            children(readNested(field))
              .filter((extension) => extensionId(extension) !== alternativeOid.altSignatureValue)
              .map(({ raw }) => raw),
          )
        : field.raw,
    ),
  )
}

/** The TBSCertificate with the alternative signature as its last extension, for the classical key to sign. */
export function withAltSignature(tbs: Uint8Array, signature: Uint8Array): Uint8Array {
  const value = sequence(altSignatureValue, octetString(bitString(signature)))
  return sequence(
    ...children(readElement(tbs)).map((field) =>
      field.tag === extensionsTag
        ? extensions([...children(readNested(field)).map(({ raw }) => raw), value])
        : field.raw,
    ),
  )
}

/**
 * The ML-DSA key a certificate gives its subject, or undefined when it gives none.
 *
 * @throws SyntaxError when it is there and not well-formed, is critical, or is no ML-DSA key.
 */
export function altPublicKey(certificate: Certificate): MlDsaPublicKey | undefined {
  const extension = alternativeExtension(certificate, alternativeOid.subjectAltPublicKeyInfo)
  return extension && legible('its alternative key', () => parseMlDsaPublicKey(extension.value))
}

/** The SubjectPublicKeyInfo of the alternative key as it stands in a certificate, unread; undefined without one. */
export const alternativeKeyInfo = (certificate: Certificate): Uint8Array | undefined =>
  certificate.extensions.find(({ oid }) => oid === alternativeOid.subjectAltPublicKeyInfo)?.value

/** An alternative signature as a certificate carries it. Nothing about it has been verified. */
export interface AltSignature {
  readonly parameterSet: MlDsaParameterSet
  readonly value: Uint8Array
}

/**
 * The alternative signature of a certificate, or undefined when it has neither of the two extensions.
 *
 * @throws SyntaxError when one is there without the other, is critical, not well-formed, or is not ML-DSA.
 */
export function altSignature(certificate: Certificate): AltSignature | undefined {
  const algorithm = alternativeExtension(certificate, alternativeOid.altSignatureAlgorithm)
  const value = alternativeExtension(certificate, alternativeOid.altSignatureValue)
  if (algorithm === undefined && value === undefined) return undefined
  if (algorithm === undefined || value === undefined) {
    const [there, missing] =
      algorithm === undefined ? ['value', 'algorithm'] : ['algorithm', 'value']
    throw new SyntaxError(`it has the ${there} of an alternative signature without the ${missing}`)
  }
  return legible('its alternative signature', () => ({
    parameterSet: parseMlDsaAlgorithm(algorithm.value),
    value: readOctetAlignedBits(readElement(value.value)),
  }))
}

/** Whether `key` made the alternative signature of `certificate`. */
export function isAltSignedBy(
  certificate: Certificate,
  signature: AltSignature,
  key: MlDsaPublicKey,
): boolean {
  // The name of the algorithm is signed too, but a key that is not of it must not even be tried.
  if (signature.parameterSet !== key.parameterSet) return false
  const message = alternativeMessage(certificate.tbs)
  return isMlDsaSignedBy(key, { message, signature: signature.value })
}

function alternativeExtension(certificate: Certificate, id: string): Extension | undefined {
  const extension = certificate.extensions.find((candidate) => candidate.oid === id)
  if (extension?.critical) throw new SyntaxError(`its extension ${id} is critical`)
  return extension
}

function legible<T>(what: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof SyntaxError || cause instanceof RangeError)) throw cause
    throw new SyntaxError(`${what} cannot be read: ${cause.message}`, { cause })
  }
}

const extensions = (encoded: readonly Uint8Array[]): Uint8Array =>
  contextConstructed(3, sequence(...encoded))

const extensionId = (extension: DerElement): string =>
  readOid(extension.reader().expect(derTag.oid))
