import { equalBytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { type Certificate, parseCertificate } from '#pki/certificate.ts'
import type { GetInfoResponse_Cert } from '#rpc/gen/spire/api/server/debug/v1/debug.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { BundleCache } from '../bundle/bundle-cache.ts'
import type { AuthorizedEntries } from '../entry/authorized-entries.ts'
import type { NodeCache } from '../node/node-cache.ts'
import type { ServerSvid } from '../svid/server-svid.ts'
import { noBundle } from './bundle-messages.ts'
import { idMessage } from './messages.ts'

export interface DebugServiceDependencies {
  readonly trustDomain: TrustDomain
  readonly entries: Pick<AuthorizedEntries, 'size'>
  readonly nodes: Pick<NodeCache, 'size'>
  readonly bundles: Pick<BundleCache, 'bundle' | 'size'>
  readonly serverSvid: Pick<ServerSvid, 'current'>
  readonly clock: Clock
  readonly startedAtSeconds: number
}

/** `spire.api.server.debug.v1.Debug`: what this server is and how much it holds. */
export function newDebugService(dependencies: DebugServiceDependencies) {
  const { trustDomain, entries, nodes, bundles, serverSvid, clock, startedAtSeconds } = dependencies
  return {
    async getInfo() {
      const bundle = bundles.bundle(trustDomain) ?? noBundle(trustDomain)
      const chain = (serverSvid.current()?.certificates ?? []).map((der) => parseCertificate(der))
      const last = chain.at(-1)
      const root = bundle.x509Authorities
        .map(({ certificate }) => parseCertificate(certificate))
        .find(({ subjectKeyId }) => last !== undefined && isSame(subjectKeyId, last.authorityKeyId))
      return {
        svidChain: [...chain, ...(root === undefined ? [] : [root])].map(certificateMessage),
        uptime: Math.floor(clock.now().epochMilliseconds / 1000) - startedAtSeconds,
        agentsCount: nodes.size,
        entriesCount: entries.size,
        federatedBundlesCount: bundles.size,
      }
    },
  }
}

const isSame = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a !== undefined && b !== undefined && equalBytes(a, b)

const certificateMessage = (certificate: Certificate): GetInfoResponse_Cert => ({
  id: idOf(certificate),
  expiresAt: certificate.notAfterSeconds,
  subject: certificate.subjectText,
})

/** A CA above ours may have none. */
function idOf({ uris: [uri] }: Certificate): GetInfoResponse_Cert['id'] {
  return uri?.startsWith('spiffe://') ? idMessage(parseSpiffeId(uri)) : undefined
}
