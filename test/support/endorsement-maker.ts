import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { extensionOid, keyUsageBit } from '#pki/certificate.ts'
import {
  bitString,
  boolean,
  contextConstructed,
  derTag,
  integer,
  octetString,
  oid,
  sequence,
  time,
  tlv,
  utf8String,
} from '#pki/der.ts'
import { encodeName } from '#pki/name.ts'

// A maker of TPMs for tests: its CA, and endorsement certificates with every field settable to what no honest
// maker would write.

/** What goes into a certificate. */
export interface CertificateFields {
  readonly subject: string
  readonly issuer: string
  readonly publicKey: Uint8Array
  readonly signingKey: KeyObject
  readonly version: 1 | 3
  /** Content octets of the serial number, so that it can be badly encoded. */
  readonly serial: Uint8Array
  readonly notBefore: string
  readonly notAfter: string
  readonly extensions: readonly Uint8Array[]
}

const ecdsaWithSha256 = sequence(oid('1.2.840.10045.4.3.2'))

/** A certificate, DER. */
export function makeCertificate(fields: CertificateFields): Uint8Array {
  const { version, extensions } = fields
  const toBeSigned = sequence(
    ...(version === 3 ? [contextConstructed(0, integer(2n))] : []),
    tlv(derTag.integer, fields.serial),
    ecdsaWithSha256,
    nameOf(fields.issuer),
    sequence(time(seconds(fields.notBefore)), time(seconds(fields.notAfter))),
    nameOf(fields.subject),
    fields.publicKey,
    ...(version === 3 && extensions.length > 0
      ? [contextConstructed(3, sequence(...extensions))]
      : []),
  )
  const signature = sign('sha256', toBeSigned, fields.signingKey)
  return sequence(toBeSigned, ecdsaWithSha256, bitString(new Uint8Array(signature)))
}

const seconds = (instant: string): number => Temporal.Instant.from(instant).epochMilliseconds / 1000

const nameOf = (commonName: string): Uint8Array =>
  encodeName([{ type: '2.5.4.3', value: commonName }])

/** An extension. */
export function extension(id: string, critical: boolean, value: Uint8Array): Uint8Array {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octetString(value))
}

/** Key usage of `keyUsageBit`s below the ninth. */
export function keyUsage(bits: number): Uint8Array {
  let reversed = 0
  for (let bit = 0; bit < 8; bit++) if (bits & (1 << bit)) reversed |= 0x80 >> bit
  return extension(extensionOid.keyUsage, true, bitString(Uint8Array.of(reversed)))
}

export function basicConstraints(isCa: boolean, pathLength?: number): Uint8Array {
  const parts = isCa ? [boolean(true)] : []
  if (pathLength !== undefined) parts.push(integer(BigInt(pathLength)))
  return extension(extensionOid.basicConstraints, true, sequence(...parts))
}

export function extendedKeyUsage(...usages: readonly string[]): Uint8Array {
  return extension(extensionOid.extendedKeyUsage, false, sequence(...usages.map(oid)))
}

/** tcg-kp-EKCertificate. */
export const endorsementUsage = '2.23.133.8.1'

/** The TPM's names; leave one out by an empty value. */
export function tpmNames(manufacturer: string, model: string, version: string): Uint8Array {
  const attributes = [
    ['2.23.133.2.1', manufacturer],
    ['2.23.133.2.2', model],
    ['2.23.133.2.3', version],
  ] as const
  const present = attributes.filter(([, value]) => value !== '')
  const name = sequence(
    ...present.map(([type, value]) => tlv(derTag.set, sequence(oid(type), utf8String(value)))),
  )
  return extension(extensionOid.subjectAltName, true, sequence(contextConstructed(4, name)))
}

/** A key pair of a CA; its public key as SubjectPublicKeyInfo. */
export interface CaKey {
  readonly privateKey: KeyObject
  readonly publicKey: Uint8Array
}

export function newCaKey(): CaKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  return {
    privateKey,
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
  }
}

const caKey = newCaKey()
const intermediateKey = newCaKey()

/** What a CA's certificate has unless a test says otherwise. */
export const caExtensions = [basicConstraints(true), keyUsage(keyUsageBit.keyCertSign)]

/** The maker: a root, which servers trust, and an intermediate below it. */
export const maker = {
  rootName: 'Test TPM Root',
  root: caKey,
  rootCertificate: caCertificate({}),
  intermediateName: 'Test TPM Intermediate',
  intermediate: intermediateKey,
} as const

/** The root's certificate, or another like it. */
export function caCertificate(changes: Partial<CertificateFields>): Uint8Array {
  return makeCertificate({
    subject: 'Test TPM Root',
    issuer: 'Test TPM Root',
    publicKey: caKey.publicKey,
    signingKey: caKey.privateKey,
    version: 3,
    serial: Uint8Array.of(1),
    notBefore: '2020-01-01T00:00:00Z',
    notAfter: '2040-01-01T00:00:00Z',
    extensions: caExtensions,
    ...changes,
  })
}

/** The intermediate's certificate, or another like it. */
export function intermediateCertificate(changes: Partial<CertificateFields> = {}): Uint8Array {
  return caCertificate({
    subject: maker.intermediateName,
    publicKey: intermediateKey.publicKey,
    ...changes,
  })
}
