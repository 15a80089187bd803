import type { Clock } from '#base/clock.ts'
import type { Interceptor } from '#rpc/service.ts'
import { sourceOf } from '#rpc/source-address.ts'
import { RateLimiter } from './rate-limit.ts'

/** Which limits are on; the others always are. */
export interface LimitOptions {
  readonly attestation: boolean
  readonly signing: boolean
  readonly clock: Clock
}

/** How many tokens a call takes; a batch takes one an item. */
type Cost = (request: unknown) => number

const one: Cost = () => 1
const perItem: Cost = (request) =>
  Math.max(1, (request as { readonly params: readonly unknown[] }).params.length)

/** SPIRE's limits per second and source address on what costs the server a signature or a write. */
export function limiting({ attestation, signing, clock }: LimitOptions): Interceptor {
  const limiter = (perSecond: number): RateLimiter => new RateLimiter({ perSecond, clock })
  const x509Signing = limiter(500)
  const limits = new Map<string, { readonly limiter: RateLimiter; readonly cost: Cost }>([
    [
      '/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority',
      { limiter: limiter(500), cost: one },
    ],
    [
      '/spire.api.server.bundle.v1.Bundle/PublishWITAuthority',
      { limiter: limiter(500), cost: one },
    ],
    ['/spire.api.server.agent.v1.Agent/PostStatus', { limiter: limiter(10), cost: one }],
    ['/assay.server.v1.Feed/Watch', { limiter: limiter(500), cost: one }],
  ])
  if (attestation) {
    limits.set('/spire.api.server.agent.v1.Agent/AttestAgent', { limiter: limiter(1), cost: one })
  }
  if (signing) {
    const svid = '/spire.api.server.svid.v1.SVID'
    limits.set(`${svid}/BatchNewX509SVID`, { limiter: x509Signing, cost: perItem })
    limits.set(`${svid}/NewDownstreamX509CA`, { limiter: x509Signing, cost: one })
    limits.set('/spire.api.server.agent.v1.Agent/RenewAgent', { limiter: x509Signing, cost: one })
    limits.set(`${svid}/NewJWTSVID`, { limiter: limiter(500), cost: one })
    limits.set(`${svid}/BatchNewWITSVID`, { limiter: limiter(500), cost: perItem })
  }
  return async ({ context, request }, next) => {
    const limit = limits.get(context.method)
    const { peer, signal } = context
    if (limit !== undefined && peer.kind === 'tls') {
      const count = limit.cost(request)
      await limit.limiter.take(sourceOf(peer.address), { count, signal })
    }
    await next()
  }
}
