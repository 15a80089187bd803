import { AssayError } from '#base/errors.ts'
import { pathOf } from '#spiffe/spiffe-id.ts'
import type { Metrics, SvidType } from '#telemetry/metrics.ts'
import type { CertificateAuthority } from './ca/certificate-authority.ts'

/** A certificate authority whose issues and refusals are counted. */
export function meteredAuthority(
  authority: CertificateAuthority,
  metrics: Metrics,
): CertificateAuthority {
  return {
    issueX509Svid: (request) =>
      counted(pathOf(request.spiffeId).startsWith('/spire/agent/') ? 'agent' : 'x509', () =>
        authority.issueX509Svid(request),
      ),
    issueJwtSvid: (request) => counted('jwt', () => authority.issueJwtSvid(request)),
  }

  async function counted<T>(type: SvidType, issue: () => Promise<T>): Promise<T> {
    try {
      const svid = await issue()
      metrics.svidIssued(type)
      return svid
    } catch (error) {
      metrics.svidRefused(
        type,
        (error instanceof AssayError ? error.reason : undefined) ?? 'internal',
      )
      throw error
    }
  }
}
