import { AssayError } from '#base/errors.ts'
import { pathOf } from '#spiffe/spiffe-id.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import type { CertificateAuthority } from './ca/certificate-authority.ts'
import type { IssuedType, IssueHistory } from './issue-history.ts'

/** A certificate authority whose issues and refusals are counted. */
export function meteredAuthority(
  authority: CertificateAuthority,
  { metrics, history }: { readonly metrics: Metrics; readonly history: IssueHistory },
): CertificateAuthority {
  return {
    issueX509Svid: (request) =>
      counted(pathOf(request.spiffeId).startsWith('/spire/agent/') ? 'agent' : 'x509', () =>
        authority.issueX509Svid(request),
      ),
    issueJwtSvid: (request) => counted('jwt', () => authority.issueJwtSvid(request)),
  }

  async function counted<T extends { readonly expiresAtSeconds: number }>(
    type: IssuedType,
    issue: () => Promise<T>,
  ): Promise<T> {
    try {
      const svid = await issue()
      metrics.svidIssued(type)
      history.issued(type, svid.expiresAtSeconds)
      return svid
    } catch (error) {
      history.refused()
      metrics.svidRefused(
        type,
        (error instanceof AssayError ? error.reason : undefined) ?? 'internal',
      )
      throw error
    }
  }
}
