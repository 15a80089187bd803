import type { Log } from '#base/log.ts'
import type { Health } from './health.ts'
import { type HttpRoute, healthRoutes, listenHttp, metricsRoutes } from './http.ts'
import type { Metrics } from './metrics.ts'

/** The keys of a daemon's configuration that are about it. */
export interface TelemetrySettings {
  readonly health_checks:
    | {
        readonly bind_address: string
        readonly bind_port: number
        readonly live_path: string
        readonly ready_path: string
      }
    | undefined
  readonly telemetry: {
    readonly prometheus: { readonly bind_address: string; readonly port: number } | undefined
  }
}

/** Where a daemon can be watched; undefined: not that. */
export interface TelemetryPorts {
  readonly healthPort: number | undefined
  readonly metricsPort: number | undefined
}

/**
 * Listens for probes and scrapers as far as the configuration says so, until `resources` are disposed of.
 *
 * @throws AssayError `unavailable` when an address cannot be listened on.
 */
export async function openTelemetry(
  { health_checks: checks, telemetry: { prometheus } }: TelemetrySettings,
  dependencies: {
    readonly health: Health
    readonly metrics: Metrics
    readonly log: Log
    readonly resources: AsyncDisposableStack
  },
): Promise<TelemetryPorts> {
  const { health, metrics, log, resources } = dependencies
  const listen = async (address: string, port: number, routes: ReadonlyMap<string, HttpRoute>) =>
    resources.use(await listenHttp({ address, port, routes, log })).port
  let healthPort: number | undefined
  let metricsPort: number | undefined
  if (checks !== undefined) {
    const { bind_address: address, bind_port: port, live_path: live, ready_path: ready } = checks
    healthPort = await listen(address, port, healthRoutes(health, { live, ready }))
  }
  if (prometheus !== undefined) {
    metricsPort = await listen(prometheus.bind_address, prometheus.port, metricsRoutes(metrics))
  }
  return { healthPort, metricsPort }
}
