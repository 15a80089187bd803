import type { Selector } from '#spiffe/selector.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { type AgentEntry, byEntryId } from './agent-entry.ts'
import { SubsetIndex, SupersetIndex } from './selector-index.ts'

/**
 * What the holder of a set of selectors is entitled to. One is shared by all workloads with the same selectors;
 * its version grows with every change of its entries, of their SVIDs and of the bundles that go with them.
 */
export class Entitlement {
  readonly selectors: ReadonlySet<Selector>
  #entries: readonly AgentEntry[]
  #version = 1
  #users = 0
  readonly #waiting = new Set<() => void>()
  readonly #memos = new Map<object, { readonly version: number; readonly value: unknown }>()

  constructor(selectors: ReadonlySet<Selector>, entries: readonly AgentEntry[]) {
    this.selectors = selectors
    this.#entries = entries
  }

  /** Entries all of whose selectors the holder has, by id. */
  get entries(): readonly AgentEntry[] {
    return this.#entries
  }

  get version(): number {
    return this.#version
  }

  /** Streams that follow it. */
  get users(): number {
    return this.#users
  }

  /** Counts a stream in, as long as the answer is not disposed of. */
  use(): Disposable {
    this.#users += 1
    return {
      [Symbol.dispose]: () => {
        this.#users -= 1
      },
    }
  }

  /**
   * What `make` makes of this version, made once for it and for everyone.
   *
   * @param make the same function object at each call: it is the name of what it makes.
   */
  memo<T>(make: (of: Entitlement) => T): T {
    const held = this.#memos.get(make)
    if (held?.version === this.#version) return held.value as T
    const value = make(this)
    this.#memos.set(make, { version: this.#version, value })
    return value
  }

  /** Waits until the version is no longer `seen`. @throws the signal's reason when it aborts. */
  async changedSince(seen: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#version !== seen) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const onAbort = (): void => reject(signal.reason)
    this.#waiting.add(resolve)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await promise
    } finally {
      this.#waiting.delete(resolve)
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** The registry's: other entries match now. */
  replaceEntries(entries: readonly AgentEntry[]): void {
    this.#entries = entries
  }

  /** The registry's: something about it has changed. */
  touch(): void {
    this.#version += 1
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }
}

/** How many entitlements that no stream follows are remembered, for the next call of the same workloads. */
const maxIdle = 1024

/**
 * All entries the agent may serve, and the entitlements in use: finds what matches what, and on a change touches
 * the entitlements concerned and no others.
 */
export class Entitlements {
  readonly #entries = new Map<string, AgentEntry>()
  readonly #entryIndex = new SubsetIndex<AgentEntry>()
  /** Least recently asked for first. */
  readonly #entitlements = new Map<string, Entitlement>()
  readonly #entitlementIndex = new SupersetIndex<Entitlement>()
  readonly #byEntry = new Map<string, Set<Entitlement>>()

  /** How many entries there are. */
  get size(): number {
    return this.#entries.size
  }

  /** Every entry, in no order. */
  get entries(): Iterable<AgentEntry> {
    return this.#entries.values()
  }

  entry(id: string): AgentEntry | undefined {
    return this.#entries.get(id)
  }

  /** Whether a stream follows an entitlement to this entry. */
  isInUse(entryId: string): boolean {
    for (const entitlement of this.#byEntry.get(entryId) ?? []) {
      if (entitlement.users > 0) return true
    }
    return false
  }

  /** What the holder of `selectors` (sorted, without repetition) is entitled to. */
  of(selectors: readonly Selector[]): Entitlement {
    // Not joined by a separator: a selector may hold any character, and a caller choose it.
    const key = JSON.stringify(selectors)
    const held = this.#entitlements.get(key)
    if (held !== undefined) {
      this.#entitlements.delete(key)
      this.#entitlements.set(key, held)
      return held
    }
    const set = new Set(selectors)
    const made = new Entitlement(set, this.#match(set))
    this.#entitlements.set(key, made)
    this.#entitlementIndex.add(made)
    this.#link(made)
    this.#forgetIdle()
    return made
  }

  /** Puts in new and changed entries, takes out others, and touches every entitlement that sees a difference. */
  applyEntries(changes: {
    readonly changed: readonly AgentEntry[]
    readonly removedIds: Iterable<string>
  }): void {
    const affected = new Set<Entitlement>()
    for (const id of changes.removedIds) {
      for (const entitlement of this.#byEntry.get(id) ?? []) affected.add(entitlement)
      this.#remove(id)
    }
    for (const entry of changes.changed) {
      for (const entitlement of this.#byEntry.get(entry.id) ?? []) affected.add(entitlement)
      this.#remove(entry.id)
      this.#entries.set(entry.id, entry)
      this.#entryIndex.add(entry)
      for (const entitlement of this.#entitlementIndex.supersetsOf(entry.selectors)) {
        affected.add(entitlement)
      }
    }
    for (const entitlement of affected) {
      this.#unlink(entitlement)
      entitlement.replaceEntries(this.#match(entitlement.selectors))
      this.#link(entitlement)
    }
    for (const entitlement of affected) entitlement.touch()
  }

  /** The SVIDs of these entries have changed. */
  touchEntries(entryIds: Iterable<string>): void {
    const affected = new Set<Entitlement>()
    for (const id of entryIds) {
      for (const entitlement of this.#byEntry.get(id) ?? []) affected.add(entitlement)
    }
    for (const entitlement of affected) entitlement.touch()
  }

  /** The bundles of these trust domains have changed. */
  touchFederated(trustDomains: ReadonlySet<TrustDomain>): void {
    for (const entitlement of this.#entitlements.values()) {
      if (entitlement.entries.some((e) => e.federatesWith.some((td) => trustDomains.has(td)))) {
        entitlement.touch()
      }
    }
  }

  /** Something that concerns everyone has changed: the own bundle, or whether the agent serves at all. */
  touchAll(): void {
    for (const entitlement of this.#entitlements.values()) entitlement.touch()
  }

  #match(selectors: ReadonlySet<Selector>): readonly AgentEntry[] {
    return this.#entryIndex
      .subsetsOf(selectors)
      .filter((entry) => !entry.storeSvid)
      .sort(byEntryId)
  }

  #remove(id: string): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    this.#entries.delete(id)
    this.#entryIndex.delete(entry)
  }

  #link(entitlement: Entitlement): void {
    for (const { id } of entitlement.entries) {
      const linked = this.#byEntry.get(id)
      if (linked === undefined) this.#byEntry.set(id, new Set([entitlement]))
      else linked.add(entitlement)
    }
  }

  #unlink(entitlement: Entitlement): void {
    for (const { id } of entitlement.entries) {
      const linked = this.#byEntry.get(id)
      linked?.delete(entitlement)
      if (linked?.size === 0) this.#byEntry.delete(id)
    }
  }

  #forgetIdle(): void {
    if (this.#entitlements.size <= maxIdle) return
    let excess = this.#entitlements.size - maxIdle
    for (const [key, entitlement] of this.#entitlements) {
      if (excess <= 0) return
      if (entitlement.users > 0) continue
      this.#entitlements.delete(key)
      this.#entitlementIndex.delete(entitlement)
      this.#unlink(entitlement)
      excess -= 1
    }
  }
}
