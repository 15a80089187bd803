import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { CallContext } from './call.ts'
import {
  type HealthCheckResponse,
  type HealthDefinition,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from './gen/grpc/health/v1/health.ts'
import type { Handlers } from './service.ts'

/** Whether one service serves now. Undefined: there is no service of that name. The empty name is the whole. */
export type HealthCheck = (service: string) => boolean | undefined

export interface HealthOptions {
  readonly check: HealthCheck
  /** The names that List tells of, beside the empty one. */
  readonly services: readonly string[]
  readonly clock: Clock
}

/** How often a watch looks, so that no part of a program has to tell it of changes. */
const watchInterval = Temporal.Duration.from({ seconds: 1 })

/** Answers `grpc.health.v1.Health` from a function. */
export function healthHandlers(options: HealthOptions): Handlers<HealthDefinition> {
  const { check, services, clock } = options
  const statusOf = (service: string): HealthCheckResponse => {
    const serving = check(service)
    if (serving === undefined) return { status: ServingStatus.SERVICE_UNKNOWN }
    return { status: serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING }
  }
  return {
    async check({ service }) {
      const answer = statusOf(service)
      if (answer.status === ServingStatus.SERVICE_UNKNOWN) {
        throw new AssayError(
          'not-found',
          `cannot check the health of '${service}': no such service`,
        )
      }
      return answer
    },

    async list() {
      return { statuses: new Map(['', ...services].map((name) => [name, statusOf(name)])) }
    },

    async *watch({ service }, { signal }: CallContext) {
      let told: HealthCheckResponse['status'] | undefined
      for (;;) {
        const answer = statusOf(service)
        if (answer.status !== told) yield answer
        told = answer.status
        await clock.sleep(watchInterval, signal)
      }
    },
  }
}
