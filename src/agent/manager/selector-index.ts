import type { Selector } from '#spiffe/selector.ts'

/** Something that is described by a set of selectors. */
export interface Selective {
  readonly selectors: Iterable<Selector>
}

/**
 * Finds the items all of whose selectors are in a given set, looking at few others: each item waits in one
 * bucket only, that of its rarest selector when it came. An item without selectors is never found.
 */
export class SubsetIndex<T extends Selective> {
  readonly #buckets = new Map<Selector, Set<T>>()
  readonly #bucketOf = new Map<T, Selector>()

  add(item: T): void {
    let rarest: Selector | undefined
    let fewest = Number.POSITIVE_INFINITY
    for (const selector of item.selectors) {
      const size = this.#buckets.get(selector)?.size ?? 0
      if (size >= fewest) continue
      rarest = selector
      fewest = size
    }
    if (rarest === undefined) return
    addTo(this.#buckets, rarest, item)
    this.#bucketOf.set(item, rarest)
  }

  delete(item: T): void {
    const selector = this.#bucketOf.get(item)
    if (selector === undefined) return
    this.#bucketOf.delete(item)
    deleteFrom(this.#buckets, selector, item)
  }

  /** Items whose selectors are all in `selectors`, in no order. */
  subsetsOf(selectors: ReadonlySet<Selector>): T[] {
    const found: T[] = []
    for (const selector of selectors) {
      for (const item of this.#buckets.get(selector) ?? []) {
        if (isSubset(item.selectors, selectors)) found.push(item)
      }
    }
    return found
  }
}

/** Finds the items whose selectors include all of a given set: each item waits in the bucket of every selector. */
export class SupersetIndex<T extends { readonly selectors: ReadonlySet<Selector> }> {
  readonly #buckets = new Map<Selector, Set<T>>()

  add(item: T): void {
    for (const selector of item.selectors) addTo(this.#buckets, selector, item)
  }

  delete(item: T): void {
    for (const selector of item.selectors) deleteFrom(this.#buckets, selector, item)
  }

  /** Items that have every one of `selectors`; none when there are no selectors. */
  supersetsOf(selectors: readonly Selector[]): T[] {
    let smallest: ReadonlySet<T> | undefined
    for (const selector of selectors) {
      const bucket = this.#buckets.get(selector)
      if (bucket === undefined) return []
      if (smallest === undefined || bucket.size < smallest.size) smallest = bucket
    }
    return [...(smallest ?? [])].filter((item) => isSubset(selectors, item.selectors))
  }
}

function isSubset(some: Iterable<Selector>, all: ReadonlySet<Selector>): boolean {
  for (const selector of some) if (!all.has(selector)) return false
  return true
}

function addTo<K, T>(buckets: Map<K, Set<T>>, key: K, item: T): void {
  const bucket = buckets.get(key)
  if (bucket === undefined) buckets.set(key, new Set([item]))
  else bucket.add(item)
}

function deleteFrom<K, T>(buckets: Map<K, Set<T>>, key: K, item: T): void {
  const bucket = buckets.get(key)
  bucket?.delete(item)
  if (bucket?.size === 0) buckets.delete(key)
}
