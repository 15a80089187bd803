import { AssayError } from '#base/errors.ts'
import { requestIdOf } from '#rpc/status.ts'
import type { WorkloadApi } from '#workload-client/workload-api.ts'
import type { CommandContext } from './command.ts'
import { connectWorkloadApi } from './daemons.ts'

/** Asks the Workload API with a connection of its own; who is refused learns how an operator finds out why. */
export async function withWorkloadApi<T>(
  context: CommandContext,
  ask: (api: WorkloadApi) => Promise<T>,
): Promise<T> {
  using api = await connectWorkloadApi(context)
  try {
    return await ask(api)
  } catch (error) {
    throw context.json ? error : withRemedy(error)
  }
}

/** A refusal with the command that explains it; anything else as it is. */
export function withRemedy(error: unknown): unknown {
  const requestId = requestIdOf(error)
  if (!(error instanceof AssayError) || error.code !== 'permission-denied') return error
  if (requestId === undefined) return error
  return new AssayError(
    error.code,
    `${error.message}\non this node an operator sees why: assay why --request ${requestId}`,
    { cause: error, ...(error.reason !== undefined && { reason: error.reason }) },
  )
}
