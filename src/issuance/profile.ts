import { type SpiffeId, serverId, spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'

/** A bit of KeyUsage, by its name in RFC 5280 §4.2.1.3. */
export type KeyUsage =
  | 'digitalSignature'
  | 'keyEncipherment'
  | 'keyAgreement'
  | 'keyCertSign'
  | 'cRLSign'

/** What every certificate of a kind has in common (X509-SVID §4, spire-server's credential templates). */
export interface CertificateProfile {
  readonly name: 'root' | 'intermediate' | 'server' | 'agent' | 'workload'
  readonly isCa: boolean
  /** Of a CA: how many CAs may stand below it; undefined: any number. */
  readonly pathLength?: number | undefined
  /** Always a critical extension. */
  readonly keyUsage: readonly KeyUsage[]
  /** Both or neither of serverAuth and clientAuth (X509-SVID §4.4). Not critical. */
  readonly tlsServerAndClient: boolean
  readonly dnsNamesAllowed: boolean
}

/** A signing certificate. Its SPIFFE ID has no path, and it never authenticates a peer. */
export function caProfile(name: 'root' | 'intermediate', pathLength?: number): CertificateProfile {
  return {
    name,
    isCa: true,
    pathLength,
    keyUsage: ['keyCertSign', 'cRLSign'],
    tlsServerAndClient: false,
    dnsNamesAllowed: false,
  }
}

const leaf = {
  isCa: false,
  keyUsage: ['digitalSignature', 'keyEncipherment', 'keyAgreement'],
  tlsServerAndClient: true,
} as const

/** The only profile that takes DNS names. */
export const workloadProfile: CertificateProfile = {
  ...leaf,
  name: 'workload',
  dnsNamesAllowed: true,
}

/** For IDs below `/spire/agent`. */
export const agentProfile: CertificateProfile = { ...leaf, name: 'agent', dnsNamesAllowed: false }

/** For the ID `/spire/server`. */
export const serverProfile: CertificateProfile = { ...leaf, name: 'server', dnsNamesAllowed: false }

/**
 * {@link workloadProfile} for a key of ML-DSA, which signs and agrees on nothing (RFC 9881 §5: no encipherment and no key
 * agreement).
 */
export const pqWorkloadProfile: CertificateProfile = {
  ...workloadProfile,
  keyUsage: ['digitalSignature'],
}

/**
 * The profile for an ID of `trustDomain`, or undefined when no leaf may carry it: another trust domain, no
 * path (X509-SVID §4.1), or a reserved path (`/spire/…`) that means nothing.
 */
export function leafProfile(
  trustDomain: TrustDomain,
  id: SpiffeId,
): CertificateProfile | undefined {
  const root = spiffeId(trustDomain, '')
  if (!id.startsWith(`${root}/`)) return undefined
  if (!id.startsWith('/spire', root.length)) return workloadProfile
  if (id === serverId(trustDomain)) return serverProfile
  if (id.startsWith('/spire/agent/', root.length)) return agentProfile
  const reserved = id.length === root.length + 6 || id.startsWith('/spire/', root.length)
  return reserved ? undefined : workloadProfile
}
