import { AssayError, messageOf } from '#base/errors.ts'
import { type CertificateProfile, leafProfile } from '#issuance/profile.ts'
import { checkKeyStrength, describePublicKey } from '#pki/public-key.ts'
import { maxSpiffeIdBytes, type SpiffeId, spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { dnsNameFault } from '../entry/dns-name.ts'
import type {
  DownstreamCaRequest,
  JwtSvidRequest,
  X509SvidRequest,
} from './certificate-authority.ts'

declare const permitBrand: unique symbol

/** A request an X.509-SVID may be made of. Only {@link permitX509Svid} makes one. */
export interface X509Permit extends X509SvidRequest {
  readonly [permitBrand]: 'x509'
  readonly profile: CertificateProfile
  readonly dnsNames: readonly string[]
}

/** A request a JWT-SVID may be made of. Only {@link permitJwtSvid} makes one. */
export interface JwtPermit extends JwtSvidRequest {
  readonly [permitBrand]: 'jwt'
}

/** A request a CA may be made of. Only {@link permitDownstreamCa} makes one. */
export interface DownstreamCaPermit extends DownstreamCaRequest {
  readonly [permitBrand]: 'ca'
}

const maxDnsNames = 256
const maxAudiences = 256
const maxAudienceCharacters = 4096

/**
 * Checks, in this order: the ID is this trust domain's, no longer than 2048 bytes, has a path, and is not
 * reserved without meaning; the TTL is a whole number of seconds; DNS names are allowed for it and well-formed;
 * the key is of an allowed type and size, as `checkKey` sees it, which throws otherwise.
 *
 * @throws AssayError `invalid-argument` that names the first one that fails.
 */
export function permitX509Svid(
  trustDomain: TrustDomain,
  request: X509SvidRequest,
  checkKey: (publicKey: Uint8Array) => void = checkClassicalKey,
): X509Permit {
  const { spiffeId, publicKey, dnsNames = [] } = request
  const refuse = refusal('an X.509-SVID', spiffeId)
  const profile = leafProfile(trustDomain, spiffeId)
  if (profile === undefined) throw refuse(notALeaf(trustDomain))
  if (spiffeId.length > maxSpiffeIdBytes) throw refuse(tooLong)
  if (!isTtl(request.ttlSeconds)) throw refuse(badTtl(request.ttlSeconds))
  if (dnsNames.length > 0 && !profile.dnsNamesAllowed) {
    throw refuse(`an SVID of kind ${profile.name} has no DNS names`)
  }
  if (dnsNames.length > maxDnsNames) throw refuse(`more than ${maxDnsNames} DNS names`)
  for (const name of dnsNames) {
    const fault = dnsNameFault(name)
    if (fault !== undefined)
      throw refuse(`DNS name ${JSON.stringify(name.slice(0, 256))}: ${fault}`)
  }
  try {
    checkKey(publicKey)
  } catch (cause) {
    throw refuse(messageOf(cause), cause)
  }
  return { ...request, dnsNames, profile } as X509Permit
}

/**
 * Checks that the ID is a workload's of this trust domain, that the TTL is a whole number of seconds, and that
 * there are 1 to 256 audiences (JWT-SVID §3.2), none of them empty.
 *
 * @throws AssayError `invalid-argument` that names the first one that fails.
 */
export function permitJwtSvid(trustDomain: TrustDomain, request: JwtSvidRequest): JwtPermit {
  const { spiffeId, audience } = request
  const refuse = refusal('a JWT-SVID', spiffeId)
  if (leafProfile(trustDomain, spiffeId)?.name !== 'workload') throw refuse(notALeaf(trustDomain))
  if (spiffeId.length > maxSpiffeIdBytes) throw refuse(tooLong)
  if (!isTtl(request.ttlSeconds)) throw refuse(badTtl(request.ttlSeconds))
  if (audience.length === 0) throw refuse('it has no audience')
  if (audience.length > maxAudiences) throw refuse(`more than ${maxAudiences} audiences`)
  for (const value of audience) {
    if (value === '' || value.length > maxAudienceCharacters) {
      throw refuse(`an audience has 1 to ${maxAudienceCharacters} characters`)
    }
  }
  return request as JwtPermit
}

/**
 * Checks that a CA may be made of a request: the TTL is a whole number of seconds, and the key is of an allowed type and
 * size.
 *
 * @throws AssayError `invalid-argument` that names the first one that fails.
 */
export function permitDownstreamCa(
  trustDomain: TrustDomain,
  { publicKey, ttlSeconds }: DownstreamCaRequest,
): DownstreamCaPermit {
  const refuse = refusal('a CA', spiffeId(trustDomain, ''))
  if (!isTtl(ttlSeconds)) throw refuse(badTtl(ttlSeconds))
  try {
    checkClassicalKey(publicKey)
  } catch (cause) {
    throw refuse(messageOf(cause), cause)
  }
  return { publicKey, ttlSeconds } as DownstreamCaPermit
}

const checkClassicalKey = (publicKey: Uint8Array): void =>
  checkKeyStrength(describePublicKey(publicKey))

const tooLong = `the ID is longer than ${maxSpiffeIdBytes} bytes`

const isTtl = (seconds: number): boolean => Number.isSafeInteger(seconds) && seconds >= 0

const badTtl = (seconds: number): string => `a TTL of ${seconds} seconds is not possible`

const notALeaf = (trustDomain: TrustDomain): string =>
  `it must be a workload's ID, one with a path, in trust domain ${trustDomain}`

function refusal(kind: string, id: SpiffeId): (why: string, cause?: unknown) => AssayError {
  return (why, cause) =>
    new AssayError('invalid-argument', `cannot issue ${kind} for ${id.slice(0, 256)}: ${why}`, {
      reason: 'svid-request-not-allowed',
      cause,
    })
}
