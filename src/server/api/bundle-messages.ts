import { AssayError } from '#base/errors.ts'
import { parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { describePublicKey } from '#pki/public-key.ts'
import {
  type BundleMask,
  Bundle as BundleMessage,
  type JWTKey,
  type X509Certificate,
} from '#rpc/gen/spire/api/types/bundle.ts'
import type { Bundle, JwtAuthority, X509Authority } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { malformed, masked, maxItems, parseTrustDomainField } from './messages.ts'
import { lengthDelimited } from './protobuf-fields.ts'

const blank = BundleMessage.create()

/** A JWT authority on the wire. */
export const jwtKeyMessage = (authority: JwtAuthority): JWTKey => ({
  publicKey: authority.publicKey,
  keyId: authority.keyId,
  expiresAt: authority.expiresAtSeconds,
  tainted: authority.tainted,
})

/** A bundle on the wire, with the fields of `mask`, or all. */
export function bundleMessage(bundle: Bundle, mask?: BundleMask): BundleMessage {
  return masked(
    {
      trustDomain: bundle.trustDomain,
      x509Authorities: bundle.x509Authorities.map(({ certificate, tainted }) => ({
        asn1: certificate,
        tainted,
      })),
      jwtAuthorities: bundle.jwtAuthorities.map(jwtKeyMessage),
      refreshHint: bundle.refreshHintSeconds,
      sequenceNumber: bundle.sequenceNumber,
      witAuthorities: [],
    },
    mask,
    blank,
  )
}

const encoded = new WeakMap<Bundle, Uint8Array>()

/** The encoding of a whole bundle, made once: SPIRE's agents ask for it every five seconds. */
export function bundleBytes(bundle: Bundle): Uint8Array {
  let bytes = encoded.get(bundle)
  if (bytes === undefined) {
    bytes = BundleMessage.encode(bundleMessage(bundle)).finish()
    encoded.set(bundle, bytes)
  }
  return bytes
}

/** A whole bundle as field `field` of another message. */
export const bundleField = (field: number, bundle: Bundle): Uint8Array =>
  lengthDelimited(field, bundleBytes(bundle))

/**
 * X.509 authorities off the wire; each message may hold several certificates, one after the other.
 *
 * @throws AssayError `invalid-argument` for one that is not a CA certificate.
 */
export function parseX509Authorities(messages: readonly X509Certificate[]): X509Authority[] {
  if (messages.length > maxItems) throw malformed('X.509 authorities', `more than ${maxItems}`)
  try {
    return messages.flatMap(({ asn1, tainted }) =>
      splitCertificates(asn1).map((der) => {
        const { basicConstraints, subjectText } = parseCertificate(der)
        if (basicConstraints?.isCa !== true) {
          throw new SyntaxError(`${subjectText} is not a CA certificate`)
        }
        return { certificate: der.slice(), tainted }
      }),
    )
  } catch (error) {
    throw malformed('X.509 authority', error)
  }
}

/** A JWT authority off the wire. @throws AssayError `invalid-argument`. */
export function parseJwtAuthority(message: JWTKey): JwtAuthority {
  const { publicKey, keyId, expiresAt, tainted } = message
  if (keyId === '' || keyId.length > 1024)
    throw malformed('JWT authority', 'the key ID is missing or too long')
  if (publicKey.length === 0) throw malformed('JWT authority', 'the public key is missing')
  try {
    describePublicKey(publicKey)
  } catch (error) {
    throw malformed('JWT authority', error)
  }
  return { publicKey: publicKey.slice(), keyId, expiresAtSeconds: expiresAt, tainted }
}

/** Another trust domain’s bundle off the wire. @throws AssayError `invalid-argument`. */
export function parseBundleMessage(message: BundleMessage): Bundle {
  const jwtAuthorities = message.jwtAuthorities.map(parseJwtAuthority)
  if (new Set(jwtAuthorities.map(({ keyId }) => keyId)).size < jwtAuthorities.length) {
    throw malformed('bundle', 'two JWT authorities have the same key ID')
  }
  if (message.refreshHint < 0) throw malformed('bundle', 'the refresh hint is negative')
  return {
    trustDomain: parseTrustDomainField(message.trustDomain),
    x509Authorities: parseX509Authorities(message.x509Authorities),
    jwtAuthorities,
    refreshHintSeconds: message.refreshHint,
    sequenceNumber: message.sequenceNumber,
  }
}

/** @throws AssayError `not-found`: there is no bundle of that trust domain. */
export function noBundle(trustDomain: TrustDomain): never {
  throw new AssayError('not-found', `bundle not found: ${trustDomain}`, {
    reason: 'bundle-not-found',
  })
}
