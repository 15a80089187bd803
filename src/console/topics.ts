/** What a browser is told of: `keys`, `refusals`. */
export type TopicName = 'server' | 'summary' | 'keys' | 'refusals' | 'nodes' | 'missing'

/** One message to a browser. */
export interface TopicMessage {
  readonly topic: TopicName
  readonly data: unknown
}

/** A place with the JSON of everything that is shown of it, and what makes it another. */
export interface Item {
  readonly id: string
}

/**
 * The newest of everything that is shown. A viewer takes what it has not seen yet, when it is ready for more: one that
 * reads slowly misses what lay between, and never makes anything pile up.
 */
export class Topics {
  readonly #values = new Map<TopicName, unknown>()
  readonly #texts = new Map<TopicName, string>()
  /** Undefined: nothing is known yet, which is not that there are none. */
  #nodes: ReadonlyMap<string, Item> | undefined
  readonly #viewers = new Set<Viewer>()
  #wakePollers: (() => void)[] = []

  /** Whether anybody looks. */
  get isWatched(): boolean {
    return this.#viewers.size > 0
  }

  get viewers(): number {
    return this.#viewers.size
  }

  /** Replaces what is told of a topic, if it differs. */
  set(topic: Exclude<TopicName, 'nodes'>, data: unknown): void {
    const text = JSON.stringify(data)
    if (this.#texts.get(topic) === text) return
    this.#texts.set(topic, text)
    this.#values.set(topic, data)
    for (const viewer of this.#viewers) viewer.tell()
  }

  /** Replaces the list of nodes. The same object is the same node. */
  setNodes(nodes: ReadonlyMap<string, Item>): void {
    this.#nodes = nodes
    for (const viewer of this.#viewers) viewer.tell()
  }

  /** Returns as soon as somebody looks. @throws the signal's reason. */
  async watched(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.isWatched) return
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason)
      signal.addEventListener('abort', onAbort, { once: true })
      this.#wakePollers.push(() => {
        signal.removeEventListener('abort', onAbort)
        resolve()
      })
    })
  }

  /** What a new viewer is to be told: everything, then what changes, until `signal` aborts. */
  async *view(signal: AbortSignal): AsyncGenerator<readonly TopicMessage[]> {
    const viewer = new Viewer()
    this.#viewers.add(viewer)
    try {
      for (const wake of this.#wakePollers.splice(0)) wake()
      while (!signal.aborted) {
        const news = this.#newsFor(viewer)
        if (news.length > 0) yield news
        await viewer.wait(signal)
      }
    } finally {
      this.#viewers.delete(viewer)
    }
  }

  #newsFor(viewer: Viewer): readonly TopicMessage[] {
    const news: TopicMessage[] = []
    for (const [topic, data] of this.#values) {
      if (viewer.seen.get(topic) === data) continue
      viewer.seen.set(topic, data)
      news.push({ topic, data })
    }
    const nodes = this.#nodes
    if (nodes !== undefined && viewer.nodes !== nodes) {
      const changed = [...nodes.values()].filter((node) => viewer.nodes?.get(node.id) !== node)
      const removed = [...(viewer.nodes?.keys() ?? [])].filter((id) => !nodes.has(id))
      const complete = viewer.nodes === undefined
      viewer.nodes = nodes
      if (complete || changed.length + removed.length > 0) {
        news.push({ topic: 'nodes', data: { complete, nodes: changed, removed } })
      }
    }
    return news
  }
}

/** What one browser has been told, and whether there is more. */
class Viewer {
  readonly seen = new Map<TopicName, unknown>()
  nodes: ReadonlyMap<string, Item> | undefined
  #told = true
  #wake: (() => void) | undefined

  tell(): void {
    this.#told = true
    this.#wake?.()
  }

  /** Returns when there is news, or `signal` aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    if (!this.#told && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done)
          resolve()
        }
        this.#wake = done
        signal.addEventListener('abort', done, { once: true })
      })
    }
    this.#wake = undefined
    this.#told = false
  }
}
