import { constants, type KeyObject, type X509Certificate } from 'node:crypto'
import type { SecureContextOptions, TLSSocket } from 'node:tls'
import { AssayError } from '#base/errors.ts'
import { encodePem } from '#pki/pem.ts'

/** A private key and its certificates as TLS shows them: DER, the leaf first. */
export interface TlsIdentity {
  readonly key: KeyObject
  readonly certificates: readonly Uint8Array[]
}

const hybridGroup = 'X25519MLKEM768'
const classicalGroups = ['X25519', 'prime256v1']

/** Most certificates a peer may show. */
const maxChain = 10

/**
 * What both ends of every TLS connection of ours have in common: TLS 1.3, a key agreement that holds out
 * against quantum computers before any that does not, and no resumption, because a resumed session would not
 * show its certificates to a bundle that has changed since. (OpenSSL sends tickets in TLS 1.3 even so; they name
 * a session that the server has not kept.)
 */
export function secureContextOptions(options: {
  readonly identity: TlsIdentity | undefined
  /** Refuses peers that cannot do the hybrid key agreement. */
  readonly requirePqKem: boolean
}): SecureContextOptions {
  const { identity, requirePqKem } = options
  return {
    minVersion: 'TLSv1.3',
    ecdhCurve: (requirePqKem ? [hybridGroup] : [hybridGroup, ...classicalGroups]).join(':'),
    secureOptions: constants.SSL_OP_NO_TICKET,
    ...(identity !== undefined && {
      key: identity.key.export({ type: 'pkcs8', format: 'pem' }),
      cert: identity.certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    }),
  }
}

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
