import { concatBytes } from '#base/bytes.ts'
import { Encoded } from '#rpc/call.ts'
import { X509BundlesResponse, X509SVIDResponse } from '#rpc/gen/spiffe/workload/workload.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { HeldIdentity } from '../manager/x509-view.ts'

/** The FetchX509SVID answer for identities in their order, ready to be sent. */
export function encodeX509Svids(of: {
  readonly identities: readonly HeldIdentity[]
  readonly bundle: Bundle
  readonly federated: readonly Bundle[]
}): Encoded {
  const bundle = rootsOf(of.bundle)
  const message: X509SVIDResponse = {
    svids: of.identities.map(({ entry, svid }) => ({
      spiffeId: svid.spiffeId,
      x509Svid: concatBytes(...svid.certificates),
      x509SvidKey: svid.privateKey,
      bundle,
      hint: entry.hint,
    })),
    crl: [],
    federatedBundles: byTrustDomainId(of.federated),
  }
  return new Encoded(X509SVIDResponse.encode(message).finish())
}

/** The FetchX509Bundles answer, ready to be sent. */
export function encodeX509Bundles(bundles: readonly Bundle[]): Encoded {
  const message: X509BundlesResponse = { crl: [], bundles: byTrustDomainId(bundles) }
  return new Encoded(X509BundlesResponse.encode(message).finish())
}

function byTrustDomainId(bundles: readonly Bundle[]): Map<string, Uint8Array> {
  return new Map(bundles.map((bundle) => [`spiffe://${bundle.trustDomain}`, rootsOf(bundle)]))
}

const concatenated = new WeakMap<Bundle, Uint8Array>()

/** The X.509 authorities of a bundle, DER, one after the other. */
function rootsOf(bundle: Bundle): Uint8Array {
  const known = concatenated.get(bundle)
  if (known !== undefined) return known
  const roots = concatBytes(...bundle.x509Authorities.map(({ certificate }) => certificate))
  concatenated.set(bundle, roots)
  return roots
}
