import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import {
  type HealthCheckRequest,
  type HealthCheckResponse,
  HealthCheckResponse_ServingStatus,
  type HealthDefinition,
  type HealthListResponse,
} from '#rpc/gen/grpc/health/v1/health.ts'
import type { Handlers } from '#rpc/service.ts'
import type { Identities } from '../manager/identities.ts'
import type { AgentStatus } from '../status.ts'

/** `grpc.health.v1.Health` of the agent: serving once it can answer workloads. It knows the empty service only. */
export function healthService(of: {
  readonly identities: Identities
  readonly status: AgentStatus
}): Handlers<HealthDefinition> {
  const { identities, status } = of
  const current = (): HealthCheckResponse => ({
    status: identities.isSynchronized
      ? HealthCheckResponse_ServingStatus.SERVING
      : HealthCheckResponse_ServingStatus.NOT_SERVING,
  })
  return {
    check: async (request: HealthCheckRequest): Promise<HealthCheckResponse> => {
      requireWhole(request)
      return current()
    },
    list: async (): Promise<HealthListResponse> => ({ statuses: new Map([['', current()]]) }),
    async *watch(
      request: HealthCheckRequest,
      context: CallContext,
    ): AsyncIterable<HealthCheckResponse> {
      requireWhole(request)
      let told: number | undefined
      for (;;) {
        const { promise: changed, resolve } = Promise.withResolvers<void>()
        using _listening = status.onChange(resolve)
        const answer = current()
        if (answer.status !== told) yield answer
        told = answer.status
        await orAborted(changed, context.signal)
      }
    },
  }
}

function requireWhole(request: HealthCheckRequest): void {
  if (request.service === '') return
  throw new AssayError(
    'invalid-argument',
    `cannot tell the health of ${JSON.stringify(request.service)}: only that of the whole agent is known`,
  )
}

async function orAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const onAbort = (): void => reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
