import type { Change, Datastore } from './datastore.ts'

/**
 * Fills a cache and keeps it: watches, lets `load` list, then applies in order what has changed since the
 * watch began. A change that the list already shows is applied again, so `apply` must be idempotent.
 *
 * @returns what ends it. When `load` fails, it has ended already.
 */
export async function follow(
  datastore: Datastore,
  cache: {
    readonly load: () => Promise<void>
    readonly apply: (change: Change) => void
  },
): Promise<Disposable> {
  const meanwhile: Change[] = []
  let isLoaded = false
  using undo = new DisposableStack()
  undo.use(
    datastore.watch((change) => {
      if (isLoaded) cache.apply(change)
      else meanwhile.push(change)
    }),
  )
  await cache.load()
  for (const change of meanwhile) cache.apply(change)
  isLoaded = true
  return undo.move()
}
