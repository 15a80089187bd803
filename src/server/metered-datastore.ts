import { AssayError } from '#base/errors.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import type { Datastore } from './datastore/datastore.ts'

/** Answered from memory. */
const notCounted: ReadonlySet<PropertyKey> = new Set<keyof Datastore>(['revision', 'watch'])

export interface MeteredDatastoreOptions {
  readonly metrics: Metrics
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
}

/** A datastore whose uses are counted and timed, by the name of what is called, and what fails by its reason. */
export function meteredDatastore(
  datastore: Datastore,
  { metrics, monotonicMs }: MeteredDatastoreOptions,
): Datastore {
  return new Proxy(datastore, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target)
      if (typeof member !== 'function') return member
      return (...args: readonly unknown[]) => {
        const answer: unknown = Reflect.apply(member, target, args)
        if (typeof name !== 'string' || notCounted.has(name)) return answer
        metrics.datastoreOperation(name)
        if (answer instanceof Promise) watch(name, answer)
        return answer
      }
    },
  })

  function watch(operation: string, answer: Promise<unknown>): void {
    const startMs = monotonicMs()
    const took = (): void => metrics.datastoreDuration(operation, (monotonicMs() - startMs) / 1000)
    answer.then(took, (error: unknown) => {
      took()
      const reason = troubleOf(error)
      if (reason !== undefined) metrics.datastoreFailure(reason)
    })
  }
}

/** Undefined when the datastore did what it had to, and the caller asked for what cannot be. */
function troubleOf(error: unknown): string | undefined {
  if (!(error instanceof AssayError)) return 'error'
  if (error.code !== 'unavailable' && error.code !== 'internal') return undefined
  return error.reason ?? error.code
}
