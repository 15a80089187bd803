import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { Selector } from '#spiffe/selector.ts'
import { type SpiffeId, serverId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { MultiMap } from './multi-map.ts'

/** Where a walk up the graph ended: an ID that may be an agent's, or an alias whose selectors name agents. */
export interface Roots {
  readonly ids: ReadonlySet<SpiffeId>
  readonly aliases: ReadonlySet<RegistrationEntry>
}

/**
 * Registration entries as a graph of parents and children. An entry below `/spire/server` is a node alias: it
 * gives the agents that have its selectors a second ID to be a parent by. Entries that name another trust
 * domain's IDs are left out.
 */
export class EntryGraph {
  readonly #trustDomain: TrustDomain
  readonly #server: SpiffeId
  readonly #byId = new Map<string, RegistrationEntry>()
  readonly #byParent = new MultiMap<SpiffeId, RegistrationEntry>()
  readonly #bySpiffeId = new MultiMap<SpiffeId, RegistrationEntry>()
  /** By each alias's first selector: an agent that has them all has that one. */
  readonly #aliases = new MultiMap<Selector, RegistrationEntry>()

  constructor(trustDomain: TrustDomain) {
    this.#trustDomain = trustDomain
    this.#server = serverId(trustDomain)
  }

  get size(): number {
    return this.#byId.size
  }

  get all(): Iterable<RegistrationEntry> {
    return this.#byId.values()
  }

  get(id: string): RegistrationEntry | undefined {
    return this.#byId.get(id)
  }

  /** Puts `entry` in the place of the one with its id; undefined removes it. */
  replace(id: string, entry: RegistrationEntry | undefined): void {
    const before = this.#byId.get(id)
    if (before !== undefined) {
      this.#byId.delete(id)
      this.#byParent.delete(before.parentId, before)
      this.#bySpiffeId.delete(before.spiffeId, before)
      if (this.isAlias(before)) this.#aliases.delete(firstSelector(before), before)
    }
    if (entry === undefined || trustDomainOf(entry.spiffeId) !== this.#trustDomain) return
    this.#byId.set(id, entry)
    this.#byParent.add(entry.parentId, entry)
    this.#bySpiffeId.add(entry.spiffeId, entry)
    if (this.isAlias(entry)) this.#aliases.add(firstSelector(entry), entry)
  }

  isAlias(entry: RegistrationEntry): boolean {
    return entry.parentId === this.#server
  }

  withSpiffeId(spiffeId: SpiffeId): ReadonlySet<RegistrationEntry> {
    return this.#bySpiffeId.get(spiffeId)
  }

  /** The aliases of a node with these selectors. */
  aliasesOf(selectors: ReadonlySet<Selector>): readonly RegistrationEntry[] {
    const found: RegistrationEntry[] = []
    for (const selector of selectors) {
      for (const alias of this.#aliases.get(selector)) {
        if (alias.selectors.every((one) => selectors.has(one))) found.push(alias)
      }
    }
    return found
  }

  /** Everything below `ids`, as far as `isLive` holds, each entry once, in no order. */
  below(
    ids: Iterable<SpiffeId>,
    isLive: (entry: RegistrationEntry) => boolean,
  ): readonly RegistrationEntry[] {
    const visited = new Set<SpiffeId>(ids)
    const found: RegistrationEntry[] = []
    // A Set's iterator also comes to what is added while it runs.
    for (const parent of visited) {
      for (const entry of this.#byParent.get(parent)) {
        if (!isLive(entry)) continue
        found.push(entry)
        visited.add(entry.spiffeId)
      }
    }
    return found
  }

  /** What `entry` is below of, all the way up; itself, when it is an alias. */
  rootsOf(entry: RegistrationEntry): Roots {
    const aliases = new Set<RegistrationEntry>()
    if (this.isAlias(entry)) return { ids: new Set(), aliases: aliases.add(entry) }
    const ids = new Set([entry.parentId])
    for (const id of ids) {
      for (const above of this.#bySpiffeId.get(id)) {
        if (this.isAlias(above)) aliases.add(above)
        else ids.add(above.parentId)
      }
    }
    return { ids, aliases }
  }
}

function firstSelector(entry: RegistrationEntry): Selector {
  const [first] = entry.selectors
  if (first === undefined) throw new TypeError(`entry ${entry.id} has no selectors`)
  return first
}
