import type { PqState } from '#pq-crypto/alternative-chain.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'

/**
 * `starting`: nothing is known yet. `attesting`: the node proves itself. `ready`: in touch with the server.
 * `degraded`: identities are served, but something is wrong. `stopped`: the server has banned the node.
 */
export type AgentState = 'starting' | 'attesting' | 'ready' | 'degraded' | 'stopped'

/** How the agent is, for operators, probes and systemd. */
export class AgentStatus {
  #state: AgentState = 'starting'
  #detail = ''
  readonly #listeners = new Set<() => void>()

  /** Undefined until the node is attested. */
  agentId: SpiffeId | undefined
  /** DER, leaf first; empty until the node is attested. */
  agentSvid: readonly Uint8Array[] = []
  /** Unix time; zero: not attested. */
  agentSvidExpiresAtSeconds = 0
  /** Unix time of the last word of the server; zero: never. */
  lastSyncAtSeconds = 0
  /** By how many milliseconds the server's clock is ahead of ours; undefined: not known. */
  clockOffsetMs: number | undefined
  /** The group the keys of the connection to the server are from; undefined: there was none yet. */
  keyAgreement: string | undefined
  /** What was found of the post-quantum signatures of the server's SVID; undefined: it was not looked at. */
  serverPq: PqState | undefined
  /** Open streams of the Workload API. */
  streams = 0

  get state(): AgentState {
    return this.#state
  }

  /** For people; empty when all is well. */
  get detail(): string {
    return this.#detail
  }

  enter(state: AgentState, detail = ''): void {
    if (state === this.#state && detail === this.#detail) return
    this.#state = state
    this.#detail = detail
    for (const listener of this.#listeners) listener()
  }

  /** Calls `listener` after each change of state or detail, until disposed. */
  onChange(listener: () => void): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }
}
