import type { Clock } from '#base/clock.ts'
import { parseCertificate } from '#pki/certificate.ts'
import type {
  DebugDefinition,
  GetInfoResponse,
  GetInfoResponse_Cert,
} from '#rpc/gen/spire/api/agent/debug/v1/debug.ts'
import type { Handlers } from '#rpc/service.ts'
import { parseSpiffeId, pathOf, trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { Identities } from '../manager/identities.ts'
import type { AgentStatus } from '../status.ts'

/** `spire.agent.debug.v1.Debug`, as SPIRE's `debug` tools ask it. */
export function debugService(of: {
  readonly identities: Identities
  readonly status: AgentStatus
  readonly startedAtSeconds: number
  readonly clock: Clock
}): Handlers<DebugDefinition> {
  const { identities, status, startedAtSeconds, clock } = of
  return {
    getInfo: async (): Promise<GetInfoResponse> => {
      const { x509Svids, jwtSvids } = identities.counts
      return {
        svidChain: status.agentSvid.map(certificateInfo),
        uptime: Math.trunc(clock.now().epochMilliseconds / 1000) - startedAtSeconds,
        svidsCount: x509Svids,
        lastSyncSuccess: status.lastSyncAtSeconds,
        cachedX509SvidsCount: x509Svids,
        cachedJwtSvidsCount: jwtSvids,
        cachedSvidstoreX509SvidsCount: 0,
      }
    },
  }
}

function certificateInfo(der: Uint8Array): GetInfoResponse_Cert {
  const { uris, notAfterSeconds, subjectText } = parseCertificate(der)
  const id = uris[0] === undefined ? undefined : parseSpiffeId(uris[0])
  return {
    id: id && { trustDomain: trustDomainOf(id), path: pathOf(id) },
    expiresAt: notAfterSeconds,
    subject: subjectText,
  }
}
