import { object } from './containers.ts'
import { choice, port, text } from './fields.ts'

// Keys that the files of both daemons have.

export const ip = () =>
  text({ maxBytes: 255 }).describe('An IP address; `0.0.0.0` or `::` for every interface.')

/** `health_checks`, by default at `defaultPort` of the loopback interface. */
export const healthChecks = (defaultPort: number) =>
  object({
    bind_address: ip().default('127.0.0.1'),
    bind_port: port({ ephemeral: true }).default(defaultPort),
    live_path: text({ maxBytes: 255 }).default('/live'),
    ready_path: text({ maxBytes: 255 }).default('/ready'),
  })
    .optional()
    .describe('HTTP endpoints for liveness and readiness. Default: none.')

/** `telemetry.prometheus`, likewise. */
export const prometheus = (defaultPort: number) =>
  object({
    bind_address: ip().default('127.0.0.1'),
    port: port({ ephemeral: true }).default(defaultPort),
  })
    .optional()
    .describe('Metrics for Prometheus, at /metrics.')

export const logLevel = () =>
  choice('debug', 'info', 'warn', 'error')
    .default('info')
    .describe('The least severe level that is logged. SIGHUP reads it again.')

export const logFormat = () =>
  choice('json', 'text').default('text').describe('For programs or for people.')
