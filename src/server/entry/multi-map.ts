/** A map from a key to many values, which knows no empty sets. */
export class MultiMap<K, V> {
  readonly #sets = new Map<K, Set<V>>()

  add(key: K, value: V): void {
    const set = this.#sets.get(key)
    if (set === undefined) this.#sets.set(key, new Set([value]))
    else set.add(value)
  }

  delete(key: K, value: V): void {
    const set = this.#sets.get(key)
    if (set === undefined) return
    set.delete(value)
    if (set.size === 0) this.#sets.delete(key)
  }

  get(key: K): ReadonlySet<V> {
    return this.#sets.get(key) ?? nothing
  }
}

const nothing: ReadonlySet<never> = new Set()
