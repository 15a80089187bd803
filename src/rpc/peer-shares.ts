import type { Peer } from './call.ts'
import { sourceOf } from './source-address.ts'

/**
 * What one peer may have under way at once, over all of its connections. A peer is a SPIFFE ID, a source address where
 * there is none, or a local user.
 */
export interface PeerBounds {
  /** Connections of a SPIFFE ID. Default: no bound; other peers have bounds of their own. */
  readonly maxConnections?: number
  /** Calls of a SPIFFE ID. Default: no bound. */
  readonly maxCalls?: number
  /** Bytes of requests that have come and whose call has not ended. Default: no bound. */
  readonly maxRequestBytes?: number
}

/** What a peer was refused for. */
export type Excess = 'connections' | 'calls' | 'request-bytes'

/** What one peer has under way. */
export class PeerShare {
  readonly name: string
  readonly #bounds: PeerBounds
  readonly #isKnown: boolean
  connections = 0
  #calls = 0
  #bytes = 0

  constructor(name: string, isKnown: boolean, bounds: PeerBounds) {
    this.name = name
    this.#isKnown = isKnown
    this.#bounds = bounds
  }

  /** Whether one connection more is too many. */
  get isFull(): boolean {
    return this.#isKnown && this.connections >= (this.#bounds.maxConnections ?? Infinity)
  }

  /** Counts a call until it is ended. Undefined: it is one too many. */
  begin(): CallShare | undefined {
    if (this.#isKnown && this.#calls >= (this.#bounds.maxCalls ?? Infinity)) return undefined
    this.#calls += 1
    let bytes = 0
    let isEnded = false
    return {
      take: (more) => {
        if (isEnded || this.#bytes + more > (this.#bounds.maxRequestBytes ?? Infinity)) return false
        bytes += more
        this.#bytes += more
        return true
      },
      end: () => {
        if (isEnded) return
        isEnded = true
        this.#calls -= 1
        this.#bytes -= bytes
      },
    }
  }
}

/** The part of one call. */
export interface CallShare {
  /** Counts bytes of its request. False: they are too many. */
  take(bytes: number): boolean
  end(): void
}

/** What each peer of a listener has under way. Peers without connections are forgotten. */
export class PeerShares {
  readonly #bounds: PeerBounds
  readonly #shares = new Map<string, PeerShare>()

  constructor(bounds: PeerBounds) {
    this.#bounds = bounds
  }

  /** How many peers have connections. */
  get size(): number {
    return this.#shares.size
  }

  /** Counts a connection until {@link leave}. Undefined: it is one too many. */
  enter(peer: Peer): PeerShare | undefined {
    const name = nameOf(peer)
    const share = this.#shares.get(name) ?? new PeerShare(name, isKnown(peer), this.#bounds)
    if (share.isFull) return undefined
    share.connections += 1
    this.#shares.set(name, share)
    return share
  }

  leave(share: PeerShare): void {
    share.connections -= 1
    if (share.connections === 0) this.#shares.delete(share.name)
  }
}

const isKnown = (peer: Peer): boolean => peer.kind === 'tls' && peer.spiffeId !== undefined

/** Names that no other kind of peer can have. */
export function nameOf(peer: Peer): string {
  if (peer.kind === 'unix') return `uid=${peer.uid}`
  return peer.spiffeId ?? sourceOf(peer.address)
}
