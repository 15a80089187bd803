interface Appointment<K> {
  readonly key: K
  readonly atMs: number
}

/**
 * What is due when: one time per key, in a binary heap, so that thousands of keys cost one timer. A time that
 * was replaced or deleted stays in the heap until it comes up, and is then passed over.
 */
export class Schedule<K> {
  readonly #heap: Appointment<K>[] = []
  readonly #current = new Map<K, Appointment<K>>()

  get size(): number {
    return this.#current.size
  }

  has(key: K): boolean {
    return this.#current.has(key)
  }

  /** When `key` is due; undefined: never. */
  timeOf(key: K): number | undefined {
    return this.#current.get(key)?.atMs
  }

  /** Makes `key` due at `atMs`, and at no other time. */
  set(key: K, atMs: number): void {
    const appointment = { key, atMs }
    this.#current.set(key, appointment)
    this.#heap.push(appointment)
    this.#siftUp(this.#heap.length - 1)
    if (this.#heap.length > 64 && this.#heap.length > 4 * this.#current.size) this.#rebuild()
  }

  delete(key: K): void {
    this.#current.delete(key)
  }

  clear(): void {
    this.#current.clear()
    this.#heap.length = 0
  }

  /** When the next key is due; undefined: never. */
  nextMs(): number | undefined {
    for (;;) {
      const first = this.#heap[0]
      if (first === undefined || this.#current.get(first.key) === first) return first?.atMs
      this.#pop()
    }
  }

  /** Takes out up to `limit` keys that are due at `nowMs`, earliest first. */
  takeDue(nowMs: number, limit = Number.POSITIVE_INFINITY): K[] {
    const due: K[] = []
    while (due.length < limit) {
      const at = this.nextMs()
      if (at === undefined || at > nowMs) break
      const { key } = this.#pop() as Appointment<K>
      this.#current.delete(key)
      due.push(key)
    }
    return due
  }

  #pop(): Appointment<K> | undefined {
    const [first] = this.#heap
    const last = this.#heap.pop()
    if (last !== undefined && this.#heap.length > 0) {
      this.#heap[0] = last
      this.#siftDown(0)
    }
    return first
  }

  #rebuild(): void {
    this.#heap.length = 0
    for (const appointment of this.#current.values()) this.#heap.push(appointment)
    // A sorted array is a heap.
    this.#heap.sort((a, b) => a.atMs - b.atMs)
  }

  #siftUp(from: number): void {
    let at = from
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (this.#atMs(parent) <= this.#atMs(at)) return
      this.#swap(at, parent)
      at = parent
    }
  }

  #siftDown(from: number): void {
    let at = from
    for (;;) {
      const left = 2 * at + 1
      const right = left + 1
      const least = this.#atMs(right) < this.#atMs(left) ? right : left
      if (this.#atMs(least) >= this.#atMs(at)) return
      this.#swap(at, least)
      at = least
    }
  }

  #atMs(index: number): number {
    return this.#heap[index]?.atMs ?? Number.POSITIVE_INFINITY
  }

  #swap(i: number, j: number): void {
    const held = this.#heap[i] as Appointment<K>
    this.#heap[i] = this.#heap[j] as Appointment<K>
    this.#heap[j] = held
  }
}
