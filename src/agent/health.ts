import type { Clock } from '#base/clock.ts'
import { healthHandlers } from '#rpc/health.ts'
import type { Identities } from './manager/identities.ts'

/** `grpc.health.v1.Health` of the agent: serving once it can answer workloads. It knows the empty service only. */
export function agentHealth({
  identities,
  clock,
}: {
  readonly identities: Pick<Identities, 'isSynchronized'>
  readonly clock: Clock
}): ReturnType<typeof healthHandlers> {
  return healthHandlers({
    check: (service) => (service === '' ? identities.isSynchronized : undefined),
    services: [],
    clock,
  })
}
