import { AssayError } from '#base/errors.ts'
import { pathOf, type SpiffeId } from '#spiffe/spiffe-id.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import type { CertificateAuthority } from './ca/certificate-authority.ts'
import type { IssuedType, IssueHistory } from './issue-history.ts'
import type { Namespaces } from './namespaces.ts'

/** A certificate authority whose issues and refusals are counted; by namespace only where there are `namespaces`. */
export function meteredAuthority(
  authority: CertificateAuthority,
  {
    metrics,
    history,
    namespaces,
  }: {
    readonly metrics: Metrics
    readonly history: IssueHistory
    readonly namespaces: Namespaces | undefined
  },
): CertificateAuthority {
  return {
    issueX509Svid: (request) =>
      counted(
        pathOf(request.spiffeId).startsWith('/spire/agent/') ? 'agent' : 'x509',
        request.spiffeId,
        () => authority.issueX509Svid(request),
      ),
    issueJwtSvid: (request) =>
      counted('jwt', request.spiffeId, () => authority.issueJwtSvid(request)),
    async issueDownstreamCa(request) {
      try {
        const issued = await authority.issueDownstreamCa(request)
        metrics.svidIssued('x509-ca')
        return issued
      } catch (error) {
        metrics.svidRefused('x509-ca', reasonOf(error))
        throw error
      }
    },
    issuePqX509Svid: (request) =>
      counted('x509', request.spiffeId, () => authority.issuePqX509Svid(request)),
    issuePqJwtSvid: (request) =>
      counted('jwt', request.spiffeId, () => authority.issuePqJwtSvid(request)),
  }

  async function counted<T extends { readonly expiresAtSeconds: number }>(
    type: IssuedType,
    id: SpiffeId,
    issue: () => Promise<T>,
  ): Promise<T> {
    try {
      const svid = await issue()
      metrics.svidIssued(type)
      history.issued(type, svid.expiresAtSeconds)
      if (namespaces !== undefined && type !== 'agent') {
        metrics.namespaceSvidIssued(namespaces.labelOf(id), type)
      }
      return svid
    } catch (error) {
      history.refused()
      metrics.svidRefused(type, reasonOf(error))
      throw error
    }
  }
}

const reasonOf = (error: unknown): string =>
  (error instanceof AssayError ? error.reason : undefined) ?? 'internal'
