import type { Clock } from '#base/clock.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { Selector } from '#spiffe/selector.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AttestedNodeRecord, Change, Datastore } from '../datastore/datastore.ts'
import { follow } from '../datastore/follow.ts'
import { pagesOf } from '../datastore/pages.ts'
import { EntryGraph } from './entry-graph.ts'
import { MultiMap } from './multi-map.ts'

/** What is kept for an agent that has asked or listens. */
interface View {
  /** Sorted by id; undefined: to be worked out again. */
  entries: readonly RegistrationEntry[] | undefined
  /** When the first of `entries`, or of what leads to them, expires; infinite when none does. */
  validUntilSeconds: number
  readonly listeners: Set<() => void>
}

/**
 * Which entries each agent may serve, in memory, as the datastore's change feed has it. An agent may serve
 * what is below its own ID and below the SPIFFE IDs of the node aliases whose selectors it has; not the
 * aliases themselves. A change costs in proportion to the agents it concerns, not to how many there are.
 */
export class AuthorizedEntries implements Disposable {
  readonly #clock: Clock
  readonly #graph: EntryGraph
  readonly #selectors = new Map<SpiffeId, readonly Selector[]>()
  readonly #agents = new MultiMap<Selector, SpiffeId>()
  readonly #views = new Map<SpiffeId, View>()
  #following: Disposable | undefined

  private constructor(trustDomain: TrustDomain, clock: Clock) {
    this.#clock = clock
    this.#graph = new EntryGraph(trustDomain)
  }

  /** Lists everything once, then follows. `clock` tells when an entry has expired. */
  static async load(
    datastore: Datastore,
    { trustDomain, clock }: { readonly trustDomain: TrustDomain; readonly clock: Clock },
  ): Promise<AuthorizedEntries> {
    const index = new AuthorizedEntries(trustDomain, clock)
    index.#following = await follow(datastore, {
      load: async () => {
        for await (const entries of pagesOf((page) => datastore.listEntries({}, page))) {
          for (const entry of entries) index.#graph.replace(entry.id, entry)
        }
        for await (const nodes of pagesOf((page) => datastore.listNodes({}, page))) {
          for (const node of nodes) index.#setSelectors(node.agentId, node.selectors)
        }
      },
      apply: (change) => index.#apply(change),
    })
    return index
  }

  [Symbol.dispose](): void {
    this.#following?.[Symbol.dispose]()
    this.#views.clear()
  }

  /** How many entries there are. */
  get size(): number {
    return this.#graph.size
  }

  /** Every entry, in no order. */
  get all(): Iterable<RegistrationEntry> {
    return this.#graph.all
  }

  /** The entry with this id, whoever may serve it. */
  entry(id: string): RegistrationEntry | undefined {
    const entry = this.#graph.get(id)
    return entry !== undefined && this.#isLive(entry) ? entry : undefined
  }

  /** Sorted by id. The same array as long as nothing has changed that concerns the agent. */
  entriesFor(agentId: SpiffeId): readonly RegistrationEntry[] {
    const view = this.#views.get(agentId)
    if (
      view?.entries !== undefined &&
      (view.validUntilSeconds === Number.POSITIVE_INFINITY ||
        view.validUntilSeconds >= this.#nowSeconds())
    ) {
      return view.entries
    }
    const { entries, validUntilSeconds } = this.#workOut(agentId)
    if (view !== undefined) {
      view.entries = entries
      view.validUntilSeconds = validUntilSeconds
    } else if (this.#selectors.has(agentId)) {
      // Only attested nodes are remembered, or whoever asks could fill the memory.
      this.#views.set(agentId, { entries, validUntilSeconds, listeners: new Set() })
    }
    return entries
  }

  /** The entry with this id if the agent may serve it. */
  entryFor(agentId: SpiffeId, entryId: string): RegistrationEntry | undefined {
    const entries = this.entriesFor(agentId)
    let low = 0
    let high = entries.length - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      const entry = entries[middle]
      if (entry === undefined) return undefined
      if (entry.id === entryId) return entry
      if (entry.id < entryId) low = middle + 1
      else high = middle - 1
    }
    return undefined
  }

  /** Calls `listener` once after each change that may alter the agent's entries. It must not throw. */
  onChange(agentId: SpiffeId, listener: () => void): Disposable {
    const view = this.#views.get(agentId) ?? {
      entries: undefined,
      validUntilSeconds: 0,
      listeners: new Set(),
    }
    this.#views.set(agentId, view)
    // A function of its own, so that one listener can be added twice.
    const own = (): void => listener()
    view.listeners.add(own)
    return {
      [Symbol.dispose]: () => {
        view.listeners.delete(own)
        this.#forgetUnused(agentId)
      },
    }
  }

  /** Every entry below an ID, those below these included: what a node that serves the ID may serve. */
  entriesBelow(spiffeId: SpiffeId): readonly RegistrationEntry[] {
    return this.#graph.below([spiffeId], (entry) => this.#isLive(entry))
  }

  /** An entry makes this ID an administrator. */
  isAdmin(spiffeId: SpiffeId): boolean {
    for (const entry of this.#graph.withSpiffeId(spiffeId)) {
      if (entry.admin && this.#isLive(entry)) return true
    }
    return false
  }

  /** An entry makes this ID a downstream server. */
  isDownstream(spiffeId: SpiffeId): boolean {
    return this.downstreamEntries(spiffeId).length > 0
  }

  /** The entries that make this ID a downstream server. */
  downstreamEntries(spiffeId: SpiffeId): readonly RegistrationEntry[] {
    return [...this.#graph.withSpiffeId(spiffeId)].filter(
      (entry) => entry.downstream && this.#isLive(entry),
    )
  }

  #workOut(agentId: SpiffeId): Pick<View, 'validUntilSeconds'> & {
    readonly entries: readonly RegistrationEntry[]
  } {
    const selectors = new Set(this.#selectors.get(agentId))
    const aliases = this.#graph.aliasesOf(selectors).filter((alias) => this.#isLive(alias))
    const ids = [agentId, ...aliases.map((alias) => alias.spiffeId)]
    const found = this.#graph.below(ids, (entry) => this.#isLive(entry))
    let validUntilSeconds = Number.POSITIVE_INFINITY
    for (const { expiresAtSeconds } of [...found, ...aliases]) {
      if (expiresAtSeconds > 0) validUntilSeconds = Math.min(validUntilSeconds, expiresAtSeconds)
    }
    const entries = found.toSorted((a, b) => (a.id < b.id ? -1 : 1))
    return { entries, validUntilSeconds }
  }

  #apply(change: Change): void {
    if (change.kind === 'entry') this.#applyEntry(change.key, change.value)
    if (change.kind === 'node') this.#applyNode(change.key, change.value)
  }

  #applyEntry(id: string, entry: RegistrationEntry | undefined): void {
    const concerned = new Set<SpiffeId>()
    const before = this.#graph.get(id)
    if (before !== undefined) this.#addConcerned(before, concerned)
    this.#graph.replace(id, entry)
    const after = this.#graph.get(id)
    if (after !== undefined) this.#addConcerned(after, concerned)
    for (const agentId of concerned) this.#invalidate(agentId)
  }

  #applyNode(agentId: SpiffeId, node: AttestedNodeRecord | undefined): void {
    const before = this.#selectors.get(agentId)
    if (node !== undefined && before !== undefined && isSame(before, node.selectors)) return
    this.#setSelectors(agentId, node?.selectors)
    this.#invalidate(agentId)
    this.#forgetUnused(agentId)
  }

  /** The agents that have a view and reach `entry`. */
  #addConcerned(entry: RegistrationEntry, concerned: Set<SpiffeId>): void {
    const { ids, aliases } = this.#graph.rootsOf(entry)
    for (const id of ids) if (this.#views.has(id)) concerned.add(id)
    for (const alias of aliases) {
      for (const agentId of this.#agentsWith(alias.selectors)) {
        if (this.#views.has(agentId)) concerned.add(agentId)
      }
    }
  }

  #agentsWith(selectors: readonly Selector[]): readonly SpiffeId[] {
    const [rarest, ...others] = selectors
      .map((selector) => this.#agents.get(selector))
      .toSorted((a, b) => a.size - b.size)
    return [...(rarest ?? [])].filter((agentId) => others.every((agents) => agents.has(agentId)))
  }

  #invalidate(agentId: SpiffeId): void {
    const view = this.#views.get(agentId)
    if (view === undefined) return
    view.entries = undefined
    for (const listener of view.listeners) listener()
  }

  #forgetUnused(agentId: SpiffeId): void {
    const view = this.#views.get(agentId)
    if (view?.listeners.size === 0 && !this.#selectors.has(agentId)) this.#views.delete(agentId)
  }

  #setSelectors(agentId: SpiffeId, selectors: readonly Selector[] | undefined): void {
    for (const selector of this.#selectors.get(agentId) ?? []) {
      this.#agents.delete(selector, agentId)
    }
    this.#selectors.delete(agentId)
    if (selectors === undefined) return
    this.#selectors.set(agentId, selectors)
    for (const selector of selectors) this.#agents.add(selector, agentId)
  }

  #isLive(entry: RegistrationEntry): boolean {
    return entry.expiresAtSeconds === 0 || entry.expiresAtSeconds >= this.#nowSeconds()
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}

function isSame(a: readonly Selector[], b: readonly Selector[]): boolean {
  return a.length === b.length && a.every((selector, index) => selector === b[index])
}
