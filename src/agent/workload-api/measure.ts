import { status as codes } from '@grpc/grpc-js'
import type { Interceptor } from '#rpc/service.ts'
import { wireStatus } from '#rpc/status.ts'
import type { Metrics } from '#telemetry/metrics.ts'

/** Measures every call; that of a stream lasts as long as the stream. */
export function measuring(options: {
  readonly metrics: Metrics
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
}): Interceptor {
  const { metrics, monotonicMs } = options
  return async ({ context }, next) => {
    const [, fullService = '', method = ''] = context.method.split('/')
    const service = fullService.slice(fullService.lastIndexOf('.') + 1)
    const startMs = monotonicMs()
    using _counted = metrics.rpcInFlight(service)
    let code = 'OK'
    try {
      await next()
    } catch (error) {
      code = codes[wireStatus(error).code] ?? 'UNKNOWN'
      throw error
    } finally {
      metrics.rpc({ service, method, code }, (monotonicMs() - startMs) / 1000)
    }
  }
}
