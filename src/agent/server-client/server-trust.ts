import { AssayError } from '#base/errors.ts'
import { parseCertificate } from '#pki/certificate.ts'
import type { PqPolicy, PqState } from '#pq-crypto/alternative-chain.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { type VerifiedHybridX509Svid, verifyHybridX509Svid } from '#spiffe/hybrid-x509-svid.ts'
import { serverId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { spiffeIdOf } from '#spiffe/x509-svid.ts'

/** What the agent goes by to recognise its server. */
export type ServerTrust =
  | { readonly kind: 'bundle'; readonly bundle: Bundle }
  /** Whoever shows a certificate with the right ID is believed. */
  | { readonly kind: 'insecure' }

/**
 * Checks that a chain (DER, leaf first) is that of a server of `trustDomain`: its ID is `/spire/server`, and it leads
 * to an authority of the bundle. The host name is not looked at.
 *
 * @returns what was found of its post-quantum signatures; undefined when it was believed without a bundle.
 * @throws AssayError `unauthenticated`, with a reason of `verifyHybridX509Svid()`, or `not-a-server`.
 */
export function verifyServer(
  chain: readonly Uint8Array[],
  against: {
    readonly trust: ServerTrust
    readonly trustDomain: TrustDomain
    /** What is wanted of its post-quantum signatures. */
    readonly pqPolicy: PqPolicy
    readonly nowSeconds: number
  },
): PqState | undefined {
  const { trust, ...rest } = against
  const { trustDomain } = against
  const { spiffeId, pq }: { readonly spiffeId: string; readonly pq?: PqState } =
    trust.kind === 'bundle'
      ? verified(chain, { bundle: trust.bundle, ...rest })
      : { spiffeId: unverifiedId(chain) }
  const expected = serverId(trustDomain)
  if (spiffeId !== expected) {
    throw new AssayError('unauthenticated', `the server is ${spiffeId}, not ${expected}`, {
      reason: 'not-a-server',
    })
  }
  return pq
}

function verified(
  chain: readonly Uint8Array[],
  against: {
    readonly bundle: Bundle
    readonly trustDomain: TrustDomain
    readonly pqPolicy: PqPolicy
    readonly nowSeconds: number
  },
): VerifiedHybridX509Svid {
  const { bundle, trustDomain, pqPolicy: policy, nowSeconds } = against
  const bundles = (presented: TrustDomain): Bundle => {
    if (presented === trustDomain) return bundle
    // To federate, as a workload would, is no remedy: this is the wrong server or the wrong configuration.
    throw new AssayError(
      'unauthenticated',
      `the server is of trust domain ${presented}, and this agent of ${trustDomain}: correct trust_domain or server_address in agent.yaml`,
      { reason: 'not-a-server' },
    )
  }
  return verifyHybridX509Svid({ certificates: chain, bundles, nowSeconds, policy })
}

function unverifiedId([leaf]: readonly Uint8Array[]): string {
  if (leaf === undefined) {
    throw new AssayError('unauthenticated', 'the server shows no certificate')
  }
  return spiffeIdOf(parseCertificate(leaf))
}
