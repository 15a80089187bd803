import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { PqPolicy } from '#pq-crypto/alternative-chain.ts'
import type { VerifiedClient } from '#rpc/tls-listener.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { verifyHybridX509Svid } from '#spiffe/hybrid-x509-svid.ts'
import { type SpiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'

/**
 * Decides about clients that show a certificate: it must be an X.509-SVID that its own trust domain's bundle
 * vouches for, and that trust domain is ours, or the ID one that was made an admin by name. What is wanted of its
 * post-quantum signatures, `pqPolicy` says.
 */
export function newClientVerifier(dependencies: {
  readonly trustDomain: TrustDomain
  /** Asked at each connection. */
  readonly adminIds: () => ReadonlySet<SpiffeId>
  readonly bundles: { bundle(trustDomain: TrustDomain): Bundle | undefined }
  readonly pqPolicy: PqPolicy
  readonly clock: Clock
}): (chain: readonly Uint8Array[]) => VerifiedClient {
  const { trustDomain, bundles, pqPolicy, clock } = dependencies
  return (chain) => {
    const adminIds = dependencies.adminIds()
    const adminDomains = new Set([...adminIds].map(trustDomainOf))
    const { spiffeId, leaf, pq } = verifyHybridX509Svid({
      certificates: chain,
      bundles: (name) =>
        name === trustDomain || adminDomains.has(name) ? bundles.bundle(name) : undefined,
      nowSeconds: Math.floor(clock.now().epochMilliseconds / 1000),
      policy: pqPolicy,
    })
    if (trustDomainOf(spiffeId) !== trustDomain && !adminIds.has(spiffeId)) {
      throw new AssayError(
        'unauthenticated',
        `cannot accept ${spiffeId}: it is of another trust domain, and neither admin_ids nor administrators has it`,
        { reason: 'trust-domain-foreign' },
      )
    }
    return {
      spiffeId,
      serialNumber: leaf.serialNumber,
      expiresAtSeconds: leaf.notAfterSeconds,
      pq,
    }
  }
}
