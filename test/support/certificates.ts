import { type KeyObject, sign } from 'node:crypto'
import { utf8Bytes } from '../../src/base/bytes.ts'
import {
  extendedKeyUsage,
  extensionOid,
  keyUsageBit,
  subjectKeyId,
} from '../../src/pki/certificate.ts'
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
} from '../../src/pki/der.ts'
import { encodeName, type NameAttribute } from '../../src/pki/name.ts'
import { generateEcKeyPair, type KeyPair } from '../../src/pki/private-key.ts'
import { describePublicKey } from '../../src/pki/public-key.ts'
import { signatureAlgorithmFor } from '../../src/pki/signature-algorithm.ts'

// Certificates for tests, right and wrong ones: every field can be set to what no CA would issue.

/** A certificate and the key it is for. */
export interface Issued {
  readonly certificate: Uint8Array
  readonly key: KeyPair
  readonly name: Uint8Array
}

export interface CertificateOptions {
  readonly key?: KeyPair
  readonly subject?: readonly NameAttribute[]
  readonly serial?: bigint
  readonly notBeforeSeconds?: number
  readonly notAfterSeconds?: number
  readonly uris?: readonly string[]
  readonly dnsNames?: readonly string[]
  /** Undefined: no basic constraints at all. */
  readonly ca?: boolean | undefined
  readonly pathLength?: number
  /** Undefined: no key usage at all. */
  readonly keyUsage?: number | undefined
  readonly usages?: readonly string[]
  /** Whole extensions, DER, after the others: {@link extension}. */
  readonly extensions?: readonly Uint8Array[]
  /** The last change before the signature: what an authority would have to be made to sign. */
  readonly finish?: (tbs: Uint8Array) => Uint8Array
  /** Another key to sign with than the issuer's. */
  readonly signingKey?: KeyObject
  /** Without: the issuer's key identifier. Null: none. */
  readonly authorityKeyId?: Uint8Array | null
}

/** The test's present: 2026-01-01T00:00:00Z. */
export const nowSeconds = 1767225600

export function extension(id: string, critical: boolean, value: Uint8Array): Uint8Array {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octetString(value))
}

/** A self-signed CA, valid by the rules of X509-SVID unless `options` say otherwise. */
export function newAuthority(trustDomain: string, options?: CertificateOptions): Issued {
  return issue(undefined, caOptions(trustDomain, options))
}

/** A CA below another. */
export function newIntermediate(
  issuer: Issued,
  trustDomain: string,
  options?: CertificateOptions,
): Issued {
  return issue(issuer, caOptions(trustDomain, options))
}

/** A leaf, valid by the rules of X509-SVID unless `options` say otherwise. */
export function newSvid(issuer: Issued, spiffeId: string, options?: CertificateOptions): Issued {
  return issue(issuer, {
    subject: [
      { type: '2.5.4.6', value: 'US' },
      { type: '2.5.4.10', value: 'SPIRE' },
    ],
    uris: [spiffeId],
    ca: false,
    keyUsage: keyUsageBit.digitalSignature | keyUsageBit.keyEncipherment | keyUsageBit.keyAgreement,
    usages: [extendedKeyUsage.serverAuth, extendedKeyUsage.clientAuth],
    ...options,
  })
}

let authorities = 0

function caOptions(trustDomain: string, options?: CertificateOptions): CertificateOptions {
  authorities++
  return {
    subject: [
      { type: '2.5.4.10', value: trustDomain },
      { type: '2.5.4.5', value: `${authorities}` },
    ],
    uris: [`spiffe://${trustDomain}`],
    ca: true,
    keyUsage: keyUsageBit.keyCertSign | keyUsageBit.cRLSign,
    ...options,
  }
}

/** Issues any certificate; without an issuer it is self-signed. */
export function issue(issuer: Issued | undefined, options: CertificateOptions): Issued {
  const key = options.key ?? generateEcKeyPair('ec-p256')
  const name = encodeName(options.subject ?? [])
  const signer = issuer ?? { key, name }
  const { identifier, hash } = signatureAlgorithmFor(describePublicKey(signer.key.publicKey))
  const encoded = sequence(
    contextConstructed(0, integer(2n)),
    integer(options.serial ?? BigInt(++authorities)),
    identifier,
    signer.name,
    sequence(
      time(options.notBeforeSeconds ?? nowSeconds - 10),
      time(options.notAfterSeconds ?? nowSeconds + 3600),
    ),
    name,
    key.publicKey,
    contextConstructed(3, sequence(...extensions(options, key, signer.key))),
  )
  const tbs = options.finish?.(encoded) ?? encoded
  const signature = sign(hash, tbs, options.signingKey ?? signer.key.privateKey)
  return { certificate: sequence(tbs, identifier, bitString(signature)), key, name }
}

function extensions(options: CertificateOptions, key: KeyPair, signer: KeyPair): Uint8Array[] {
  const { ca, keyUsage, usages, uris = [], dnsNames = [], pathLength, authorityKeyId } = options
  const list: Uint8Array[] = []
  if (keyUsage !== undefined) {
    list.push(extension(extensionOid.keyUsage, true, encodeKeyUsage(keyUsage)))
  }
  if (usages !== undefined) {
    list.push(extension(extensionOid.extendedKeyUsage, false, sequence(...usages.map(oid))))
  }
  if (ca !== undefined) {
    const length = pathLength === undefined ? [] : [integer(BigInt(pathLength))]
    const value = sequence(...(ca ? [boolean(true)] : []), ...length)
    list.push(extension(extensionOid.basicConstraints, true, value))
  }
  const subjectId = octetString(subjectKeyId(key.publicKey))
  list.push(extension(extensionOid.subjectKeyId, false, subjectId))
  if (authorityKeyId !== null) {
    const id = authorityKeyId ?? subjectKeyId(signer.publicKey)
    list.push(extension(extensionOid.authorityKeyId, false, sequence(contextPrimitive(0, id))))
  }
  const names = [
    ...uris.map((uri) => contextPrimitive(6, utf8Bytes(uri))),
    ...dnsNames.map((name) => contextPrimitive(2, utf8Bytes(name))),
  ]
  if (names.length > 0) {
    list.push(extension(extensionOid.subjectAltName, false, sequence(...names)))
  }
  return [...list, ...(options.extensions ?? [])]
}

/** A KeyUsage BIT STRING without trailing zero bits, as DER wants named bits. */
export function encodeKeyUsage(usage: number): Uint8Array {
  const bytes = new Uint8Array(usage >= 0x100 ? 2 : 1)
  for (let bit = 0; bit < 9; bit++) {
    if ((usage & (1 << bit)) !== 0) bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (0x80 >> (bit & 7))
  }
  const last = bytes[bytes.length - 1] ?? 0
  return bitString(bytes, last === 0 ? 7 : 31 - Math.clz32(last & -last))
}
