import { AssayError } from '#base/errors.ts'
import type { CommandContext } from './command.ts'

/**
 * Runs `work` for at most `limitSeconds`, and holds the process meanwhile: a connection of grpc-js alone does not, and a
 * command would end while it waits for an answer.
 */
export async function holding<T>(
  context: CommandContext,
  limitSeconds: number,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const stop = new AbortController()
  const signal = AbortSignal.any([context.signal, stop.signal])
  const late = new AssayError('unavailable', `there was no answer within ${limitSeconds} s`, {
    reason: 'deadline-exceeded',
  })
  const limit = context.clock.sleep(Temporal.Duration.from({ seconds: limitSeconds }), signal).then(
    () => stop.abort(late),
    () => {
      // It was done in time.
    },
  )
  try {
    return await work(signal)
  } finally {
    stop.abort(late)
    await limit
  }
}
