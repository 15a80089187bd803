import { pathOf, type SpiffeId } from '#spiffe/spiffe-id.ts'

/** What stands for every namespace beyond the first {@link mostNamespaces}. */
export const otherNamespaces = 'other'

/** As many values as a label of a metric may take: whoever creates entries chooses the names. */
export const mostNamespaces = 50

/**
 * The namespaces that metrics tell apart: the first path segments of SPIFFE IDs, in the order in which they were
 * first counted. One keeps its place while the process lives, so that its series does not jump.
 */
export class Namespaces {
  readonly #known = new Set<string>()

  /** The namespace of an ID as a label, {@link otherNamespaces} when there is no place for it. */
  labelOf(id: SpiffeId): string {
    return this.#placed(namespaceOf(id))
  }

  /** How many of the IDs each label has. The namespace with most IDs takes its place first. */
  count(ids: Iterable<SpiffeId>): ReadonlyMap<string, number> {
    const counts = new Map<string, number>()
    for (const id of ids) {
      const name = namespaceOf(id)
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    const labels = new Map<string, number>()
    for (const [name, count] of [...counts].toSorted(([, a], [, b]) => b - a)) {
      const label = this.#placed(name)
      labels.set(label, (labels.get(label) ?? 0) + count)
    }
    return labels
  }

  #placed(name: string): string {
    if (this.#known.has(name)) return name
    if (this.#known.size === mostNamespaces) return otherNamespaces
    this.#known.add(name)
    return name
  }
}

/** Empty for the ID of the trust domain itself. */
function namespaceOf(id: SpiffeId): string {
  const path = pathOf(id)
  const end = path.indexOf('/', 1)
  return path.slice(1, end < 0 ? undefined : end)
}
