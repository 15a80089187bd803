import { openTelemetry } from '#telemetry/endpoints.ts'
import type { Health } from '#telemetry/health.ts'
import { type AdministrationDependencies, openAdministration } from './admin-api/endpoint.ts'
import type { AgentConfig } from './config.ts'
import { openWorkloadApi, type WorkloadEndpointDependencies } from './workload-api/endpoint.ts'

export interface EndpointDependencies
  extends Omit<WorkloadEndpointDependencies, 'log'>,
    AdministrationDependencies {
  readonly health: Health
}

/**
 * Opens every socket the configuration names, and returns the port of the metrics, if there are any.
 *
 * @throws AssayError `failed-precondition`
 */
export async function openEndpoints(
  config: AgentConfig,
  dependencies: EndpointDependencies,
): Promise<number | undefined> {
  registerHealth(dependencies)
  registerMetrics(dependencies)
  await openWorkloadApi(config, dependencies)
  await openAdministration(config, dependencies)
  const { metricsPort } = await openTelemetry(config, dependencies)
  return metricsPort
}

/** An agent whose server is away is ready all the same: it serves what it holds. */
function registerHealth({ health, identities, status, nodeAttestor }: EndpointDependencies): void {
  health.register('agent', () => {
    const { state, detail } = status
    const ready = identities.isSynchronized
    return state === 'ready'
      ? { live: true, ready }
      : { live: true, ready, detail: detail === '' ? state : `${state}: ${detail}` }
  })
  health.register('node-attestor', () => {
    const { state, detail } = nodeAttestor.status()
    return state === 'ok' ? { live: true, ready: true } : { live: true, ready: true, detail }
  })
}

function registerMetrics({ metrics, identities, reporter, status }: EndpointDependencies): void {
  metrics.serverReachable(false)
  metrics.beforeReading(() => {
    const { entries, x509Svids, jwtSvids } = identities.counts
    metrics.cacheEntries('entries', entries)
    metrics.cacheEntries('x509-svids', x509Svids)
    metrics.cacheEntries('jwt-svids', jwtSvids)
    const { firstExpiryMs } = identities
    metrics.expiry('workload-svid', firstExpiryMs && Math.trunc(firstExpiryMs / 1000))
    metrics.reportState(reporter.state)
    const { lastSyncAtSeconds, clockOffsetMs } = status
    if (lastSyncAtSeconds > 0) metrics.lastSync(lastSyncAtSeconds)
    if (clockOffsetMs !== undefined) metrics.clockOffset(clockOffsetMs / 1000)
  })
}
