import { constants, type KeyObject, type X509Certificate } from 'node:crypto'
import type { SecureContextOptions, TLSSocket } from 'node:tls'
import { AssayError } from '#base/errors.ts'
import { children, readElement, readNested, readSmallInteger } from '#pki/der.ts'
import { encodePem } from '#pki/pem.ts'

/** A private key and its certificates as TLS shows them: DER, the leaf first. */
export interface TlsIdentity {
  readonly key: KeyObject
  readonly certificates: readonly Uint8Array[]
}

/**
 * Which algorithms a connection may use. `cnsa2` is what CNSA 2.0 leaves of TLS: SecP384r1MLKEM1024 and AES-256; the
 * keys in certificates are chosen elsewhere.
 */
export type TlsProfile = 'default' | 'cnsa2'

/** Hybrid key agreements (RFC 10024), the preferred one first: what both ends always offer. */
const hybridGroups: Readonly<Record<TlsProfile, readonly string[]>> = {
  // The second is for peers of the other profile, so that a fleet can move over node by node.
  default: ['X25519MLKEM768', 'SecP384r1MLKEM1024'],
  cnsa2: ['SecP384r1MLKEM1024'],
}
const classicalGroups = ['X25519', 'prime256v1']

const everyHybridGroup: ReadonlySet<string> = new Set(Object.values(hybridGroups).flat())

/** Whether keys from this group hold out against a quantum computer that has recorded how they were agreed on. */
export const isHybridGroup = (group: string): boolean => everyHybridGroup.has(group)

/** Names of the groups we offer, by their number in TLS (IANA's TLS Supported Groups). */
const groupNames: ReadonlyMap<number, string> = new Map([
  [0x0017, 'P-256'],
  [0x001d, 'X25519'],
  [0x11ec, 'X25519MLKEM768'],
  [0x11ed, 'SecP384r1MLKEM1024'],
])

/** What a peer must have one of, for messages: the key agreements that are offered to it. */
export function offeredGroups({ profile, requirePqKem }: TlsRequirements): readonly string[] {
  const hybrid = hybridGroups[profile]
  return requirePqKem || profile === 'cnsa2' ? hybrid : [...hybrid, 'X25519', 'P-256']
}

/** What is wanted of every connection at one end. */
export interface TlsRequirements {
  readonly profile: TlsProfile
  /** Refuses peers that cannot do a hybrid key agreement; `cnsa2` always does. */
  readonly requirePqKem: boolean
}

/** Most certificates a peer may show. */
const maxChain = 10

/**
 * What both ends of every TLS connection of ours have in common: TLS 1.3, a key agreement that holds out
 * against quantum computers before any that does not, and no resumption, because a resumed session would not
 * show its certificates to a bundle that has changed since. (OpenSSL sends tickets in TLS 1.3 even so; they name
 * a session that the server has not kept.)
 */
export function secureContextOptions(
  options: TlsRequirements & { readonly identity: TlsIdentity | undefined },
): SecureContextOptions {
  const { identity, requirePqKem, profile } = options
  const classical = requirePqKem || profile === 'cnsa2' ? [] : classicalGroups
  return {
    minVersion: 'TLSv1.3',
    ecdhCurve: [...hybridGroups[profile], ...classical].join(':'),
    ...(profile === 'cnsa2' && { ciphers: 'TLS_AES_256_GCM_SHA384' }),
    secureOptions: constants.SSL_OP_NO_TICKET,
    ...(identity !== undefined && {
      key: identity.key.export({ type: 'pkcs8', format: 'pem' }),
      cert: identity.certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    }),
  }
}

/** `[19]` of OpenSSL's SSL_SESSION: the group of the key agreement. */
const groupTag = 0xb3

/**
 * The group a connection agreed on its keys with: `X25519MLKEM768`. Node tells it to clients only; at the server it is in
 * what OpenSSL keeps of the session.
 */
export function negotiatedGroup(socket: TLSSocket): string {
  const told: { readonly name?: string | undefined } | null = socket.getEphemeralKeyInfo()
  const name = told === null ? groupOfSession(socket.getSession()) : told.name
  return name === 'prime256v1' ? 'P-256' : (name ?? 'unknown')
}

function groupOfSession(session: Uint8Array | undefined): string | undefined {
  if (session === undefined) return undefined
  try {
    const group = children(readElement(session)).find(({ tag }) => tag === groupTag)
    return group && groupNames.get(readSmallInteger(readNested(group)))
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return undefined
  } finally {
    // The session's secret is in there too.
    session.fill(0)
  }
}

/** Whether a handshake failed because the ends have no key agreement in common, as the server sees it. */
export const hasNoCommonGroup = (error: Error): boolean =>
  'code' in error && error.code === 'ERR_SSL_NO_SUITABLE_KEY_SHARE'

/**
 * The certificates the peer showed, DER, the leaf first. Nothing about them has been verified.
 *
 * @throws AssayError `unauthenticated` when there are more than 10.
 */
export function peerChain(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = []
  let certificate: X509Certificate | undefined = socket.getPeerX509Certificate()
  while (certificate !== undefined) {
    if (chain.length === maxChain) {
      throw new AssayError('unauthenticated', `the peer shows more than ${maxChain} certificates`)
    }
    chain.push(new Uint8Array(certificate.raw))
    certificate = certificate.issuerCertificate
  }
  return chain
}

/** Keying material of a connection (RFC 8446 §7.5), the same on both ends and on no other connection. */
export function exportKeyingMaterial(socket: TLSSocket, label: string, length: number): Uint8Array {
  // Without context, which in TLS 1.3 is the same as an empty one; the types want it all the same.
  return new Uint8Array(socket.exportKeyingMaterial(length, label, undefined as never))
}
