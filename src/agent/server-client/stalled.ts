import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'

/**
 * Passes on what `source` yields, and ends it when it has been silent for longer than `limit`.
 *
 * @throws AssayError `unavailable`, reason `stream-stalled`.
 */
export async function* endWhenStalled<T>(
  source: AsyncIterable<T>,
  options: {
    readonly limit: Temporal.Duration
    readonly clock: Clock
    readonly signal: AbortSignal
  },
): AsyncGenerator<T> {
  const { limit, clock, signal } = options
  const iterator = source[Symbol.asyncIterator]()
  try {
    for (;;) {
      const heard = new AbortController()
      const silence = clock.sleep(limit, AbortSignal.any([signal, heard.signal])).then(() => {
        throw new AssayError('unavailable', `the server has been silent for ${limit}`, {
          reason: 'stream-stalled',
        })
      })
      try {
        const next = await Promise.race([iterator.next(), silence])
        if (next.done === true) return
        yield next.value
      } finally {
        heard.abort()
      }
    }
  } finally {
    // It may be hanging in the very read that took too long: nobody waits for it.
    iterator.return?.().catch(() => {})
  }
}
