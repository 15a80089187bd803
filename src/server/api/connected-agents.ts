import type { SpiffeId } from '#spiffe/spiffe-id.ts'

/** From where agents hold a stream open. One agent ID is one machine, so two addresses are worth an alarm. */
export class ConnectedAgents {
  readonly #addresses = new Map<SpiffeId, string[]>()

  /** How many agents are connected. */
  get size(): number {
    return this.#addresses.size
  }

  has(agentId: SpiffeId): boolean {
    return this.#addresses.has(agentId)
  }

  /** The address the agent is connected from; undefined when it is not. */
  addressOf(agentId: SpiffeId): string | undefined {
    return this.#addresses.get(agentId)?.[0]
  }

  /** The address the agent is connected from, if it is from one other than `address`. */
  elsewhere(agentId: SpiffeId, address: string): string | undefined {
    return this.#addresses.get(agentId)?.find((other) => other !== address)
  }

  /** Notes a connection until it is disposed of. */
  add(agentId: SpiffeId, address: string): Disposable {
    const addresses = this.#addresses.get(agentId) ?? []
    this.#addresses.set(agentId, addresses)
    addresses.push(address)
    return {
      [Symbol.dispose]: () => {
        addresses.splice(addresses.indexOf(address), 1)
        if (addresses.length === 0 && this.#addresses.get(agentId) === addresses) {
          this.#addresses.delete(agentId)
        }
      },
    }
  }
}
