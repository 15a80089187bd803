import { status } from '@grpc/grpc-js'
import { AssayError, type ErrorCode, messageOf } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import type { Interceptor } from '#rpc/service.ts'
import { wireStatus } from '#rpc/status.ts'
import type { Audit, Decision } from '#telemetry/audit.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import { notesOf } from './call-notes.ts'
import { callerOf, userOf } from './caller.ts'

export interface ObserveDependencies {
  readonly audit: Audit
  readonly metrics: Metrics
  /** The types that may stand in a label; what a caller makes up may not. */
  readonly attestorTypes: ReadonlySet<string>
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
}

/** What agents ask all the time and what changes nothing; it is recorded only when it is refused. */
const routine: ReadonlySet<string> = new Set([
  '/spire.api.server.bundle.v1.Bundle/GetBundle',
  '/spire.api.server.bundle.v1.Bundle/GetFederatedBundle',
  '/spire.api.server.entry.v1.Entry/GetAuthorizedEntries',
  '/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries',
  '/spire.api.server.agent.v1.Agent/PostStatus',
  '/assay.server.v1.Feed/Watch',
  '/assay.server.v1.Feed/Report',
  '/grpc.health.v1.Health/Check',
  '/grpc.health.v1.Health/Watch',
  '/grpc.health.v1.Health/List',
])

const attestAgent = '/spire.api.server.agent.v1.Agent/AttestAgent'

/** Streams that are counted while they are open. */
const streams: ReadonlyMap<string, 'feed' | 'sync'> = new Map([
  ['/assay.server.v1.Feed/Watch', 'feed'],
  ['/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries', 'sync'],
])

/** Measures every call, and records in the audit log what was decided about it. */
export function observing(dependencies: ObserveDependencies): Interceptor {
  const { audit, metrics, attestorTypes, monotonicMs } = dependencies
  return async ({ context }, next) => {
    const [, fullService = '', method = ''] = context.method.split('/')
    const service = fullService.slice(fullService.lastIndexOf('.') + 1)
    const startMs = monotonicMs()
    using _counted = metrics.rpcInFlight(service)
    const stream = streams.get(context.method)
    using _open = stream && metrics.stream(stream)
    let failure: unknown
    try {
      await next()
    } catch (error) {
      failure = error
      throw error
    } finally {
      const code = failure === undefined ? 'OK' : (status[wireStatus(failure).code] ?? 'UNKNOWN')
      metrics.rpc({ service, method, code }, (monotonicMs() - startMs) / 1000)
      conclude(context, method, failure)
    }
  }

  function conclude(context: CallContext, method: string, failure: unknown): void {
    if (isGone(failure)) return
    const result = resultOf(failure)
    const reason = failure instanceof AssayError ? failure.reason : undefined
    const { attestationType, ...notes } = notesOf(context)
    if (failure instanceof AssayError && failure.code === 'permission-denied') {
      metrics.authorizationDenied({ method, reason: reason ?? 'not-authorized' })
    }
    if (context.method === attestAgent) {
      const attestor = attestationType ?? ''
      metrics.attestation({
        kind: 'node',
        attestor: attestorTypes.has(attestor) ? attestor : 'unknown',
        outcome: result,
        reason: reason ?? '',
      })
    }
    if (result === 'allowed' && routine.has(context.method)) return
    audit.record({
      ...notes,
      action: context.method,
      result,
      requestId: context.requestId,
      ...callerFields(context),
      ...(attestationType !== undefined && { attestationType: attestationType.slice(0, 64) }),
      ...(reason !== undefined && { reason }),
      ...(failure !== undefined && { message: messageOf(failure) }),
    })
  }
}

/** The caller went away, or we are stopping: nothing was decided. */
const isGone = (failure: unknown): boolean =>
  failure instanceof AssayError &&
  (failure.reason === 'cancelled' || failure.reason === 'server-stopping')

const ours: ReadonlySet<ErrorCode> = new Set(['unavailable', 'internal'])

function resultOf(failure: unknown): Decision['result'] {
  if (failure === undefined) return 'allowed'
  return failure instanceof AssayError && !ours.has(failure.code) ? 'refused' : 'failed'
}

type CallerFields = Pick<Decision, 'address' | 'caller' | 'user' | 'right'>

function callerFields(context: CallContext): CallerFields {
  const { peer } = context
  const right = rightText(context)
  const user = userOf(context)
  const why = { ...(user !== undefined && { user }), ...(right !== undefined && { right }) }
  return peer.kind === 'tls'
    ? { address: peer.address, caller: peer.spiffeId ?? '', ...why }
    : { address: 'local', caller: `uid=${peer.uid} gid=${peer.gid} pid=${peer.pid}`, ...why }
}

function rightText(context: CallContext): string | undefined {
  const caller = callerOf(context)
  if (caller?.class !== 'local' && caller?.class !== 'admin') return caller?.class
  return caller.rights.permission(context.method)?.by ?? caller.class
}
