import type { Metrics } from '#telemetry/metrics.ts'
import type { Datastore } from './datastore/datastore.ts'

/** Answered from memory. */
const notCounted: ReadonlySet<PropertyKey> = new Set<keyof Datastore>(['revision', 'watch'])

/** A datastore whose uses are counted, by the name of what is called. */
export function meteredDatastore(datastore: Datastore, metrics: Metrics): Datastore {
  return new Proxy(datastore, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target)
      if (typeof member !== 'function') return member
      return (...args: readonly unknown[]) => {
        if (typeof name === 'string' && !notCounted.has(name)) metrics.datastoreOperation(name)
        return Reflect.apply(member, target, args)
      }
    },
  })
}
