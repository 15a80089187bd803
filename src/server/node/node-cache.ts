import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { AttestedNodeRecord, Datastore } from '../datastore/datastore.ts'
import { follow } from '../datastore/follow.ts'
import { pagesOf } from '../datastore/pages.ts'
import { isBanned } from './banned.ts'

/** Told of a node's new record; undefined: it is gone. */
export type NodeListener = (node: AttestedNodeRecord | undefined) => void

/** Every attested node, in memory, as the datastore's change feed has it: reading one costs no query. */
export class NodeCache implements Disposable {
  readonly #nodes = new Map<SpiffeId, AttestedNodeRecord>()
  readonly #listeners = new Map<SpiffeId, Set<NodeListener>>()
  #following: Disposable | undefined

  private constructor() {}

  static async load(datastore: Datastore): Promise<NodeCache> {
    const cache = new NodeCache()
    cache.#following = await follow(datastore, {
      load: async () => {
        for await (const nodes of pagesOf((page) => datastore.listNodes({}, page))) {
          for (const node of nodes) cache.#nodes.set(node.agentId, node)
        }
      },
      apply: (change) => {
        if (change.kind === 'node') cache.#apply(change.key, change.value)
      },
    })
    return cache
  }

  [Symbol.dispose](): void {
    this.#following?.[Symbol.dispose]()
    this.#listeners.clear()
  }

  get size(): number {
    return this.#nodes.size
  }

  /** Every node, in no order. */
  get all(): Iterable<AttestedNodeRecord> {
    return this.#nodes.values()
  }

  node(agentId: SpiffeId): AttestedNodeRecord | undefined {
    return this.#nodes.get(agentId)
  }

  /** Calls `listener` after every change of the node's record. It must not throw. */
  onChange(agentId: SpiffeId, listener: NodeListener): Disposable {
    const listeners = this.#listeners.get(agentId) ?? new Set()
    this.#listeners.set(agentId, listeners)
    // A function of its own, so that one listener can be added twice.
    const own: NodeListener = (node) => listener(node)
    listeners.add(own)
    return {
      [Symbol.dispose]: () => {
        listeners.delete(own)
        if (listeners.size === 0 && this.#listeners.get(agentId) === listeners) {
          this.#listeners.delete(agentId)
        }
      },
    }
  }

  /** Calls `listener` when the node is banned or deleted, which is when its streams are to end. */
  onBanned(agentId: SpiffeId, listener: () => void): Disposable {
    return this.onChange(agentId, (node) => {
      if (node === undefined || isBanned(node)) listener()
    })
  }

  #apply(agentId: SpiffeId, node: AttestedNodeRecord | undefined): void {
    if (node === undefined) this.#nodes.delete(agentId)
    else this.#nodes.set(agentId, node)
    for (const listener of this.#listeners.get(agentId) ?? []) listener(node)
  }
}
