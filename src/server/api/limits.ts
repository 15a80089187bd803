import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import type { InterceptedCall, Interceptor } from '#rpc/service.ts'
import { sourceOf } from '#rpc/source-address.ts'
import { callerOf } from './caller.ts'
import { RateLimiter } from './rate-limit.ts'

/** Limits that can be off; the others are always on. */
export type Limited = 'attestation' | 'signing'

export interface LimitOptions {
  /** Asked at each call. */
  readonly isOn: (limited: Limited) => boolean
  readonly clock: Clock
}

/** How many tokens a call takes; a batch takes one an item. */
type Cost = (call: InterceptedCall) => number

const one: Cost = () => 1
/** The items are all that such a request has. They are counted without being decoded, which costs more than sending. */
const perItem: Cost = ({ fields }) => Math.max(1, fields)

/** Fields that a request of somebody may have who administers nothing; the largest has one for each item of a batch. */
const maxFields = 10_000

interface Limit {
  readonly limiter: RateLimiter
  readonly cost: Cost
  /** Undefined: it is always on. */
  readonly limited?: Limited
}

/** SPIRE's limits per second and source address on what costs the server a signature or a write. */
export function limiting({ isOn, clock }: LimitOptions): Interceptor {
  const limiter = (perSecond: number): RateLimiter => new RateLimiter({ perSecond, clock })
  const x509Signing = limiter(500)
  const svid = '/spire.api.server.svid.v1.SVID'
  const signing = (perCall: Limit): Limit => ({ ...perCall, limited: 'signing' })
  const limits = new Map<string, Limit>([
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
    [
      '/spire.api.server.agent.v1.Agent/AttestAgent',
      { limiter: limiter(1), cost: one, limited: 'attestation' },
    ],
    [`${svid}/BatchNewX509SVID`, signing({ limiter: x509Signing, cost: perItem })],
    [
      '/assay.server.v1.PostQuantum/BatchNewX509SVID',
      signing({ limiter: x509Signing, cost: perItem }),
    ],
    ['/assay.server.v1.PostQuantum/NewJWTSVID', signing({ limiter: limiter(500), cost: one })],
    [`${svid}/NewDownstreamX509CA`, signing({ limiter: x509Signing, cost: one })],
    ['/spire.api.server.agent.v1.Agent/RenewAgent', signing({ limiter: x509Signing, cost: one })],
    [`${svid}/NewJWTSVID`, signing({ limiter: limiter(500), cost: one })],
    [`${svid}/BatchNewWITSVID`, signing({ limiter: limiter(500), cost: perItem })],
  ])
  return async (call, next) => {
    const { context } = call
    if (callerOf(context)?.class !== 'admin' && call.fields > maxFields)
      throw tooManyFields(context)
    const limit = limits.get(context.method)
    const { peer, signal } = context
    const isOff = limit?.limited !== undefined && !isOn(limit.limited)
    if (limit !== undefined && !isOff && peer.kind === 'tls') {
      const count = limit.cost(call)
      await limit.limiter.take(sourceOf(peer.address), { count, signal })
    }
    await next()
  }
}

const tooManyFields = ({ method }: CallContext): AssayError =>
  new AssayError(
    'resource-exhausted',
    `cannot ${method}: the request has more than ${maxFields} fields`,
    {
      reason: 'too-many-fields',
    },
  )
