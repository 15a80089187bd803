import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'

/** What an agent knew that the server does not. */
export interface LostStateEvidence {
  readonly agentId: SpiffeId
  /** Of the own bundle that the agent holds. */
  readonly agentSequence: bigint
  /** Of the server's own. */
  readonly serverSequence: bigint
  /** Unix time at which it was seen first. */
  readonly seenAtSeconds: number
}

/**
 * Notices that the server's data is of an earlier state than what was told to agents, as after files were copied back: an
 * agent holds a bundle with a higher sequence number than there is. It is said, and nothing is stopped by it, because
 * one agent that lies must not be able to stop a trust domain.
 */
export class LostState {
  readonly #options: {
    readonly heldSequence: () => bigint
    readonly clock: Clock
    readonly log: Log
  }
  #evidence: LostStateEvidence | undefined

  constructor(options: {
    /** Sequence number of the own bundle. */
    readonly heldSequence: () => bigint
    readonly clock: Clock
    readonly log: Log
  }) {
    this.#options = options
  }

  /** The first that was seen since the start; undefined: nothing speaks for it. */
  get evidence(): LostStateEvidence | undefined {
    return this.#evidence
  }

  /** @param agentSequence what an agent says it holds; zero: nothing. */
  compare(agentId: SpiffeId, agentSequence: bigint): void {
    const serverSequence = this.#options.heldSequence()
    if (agentSequence <= serverSequence || this.#evidence !== undefined) return
    const { clock, log } = this.#options
    const seenAtSeconds = Math.floor(clock.now().epochMilliseconds / 1000)
    this.#evidence = { agentId, agentSequence, serverSequence, seenAtSeconds }
    log.error(
      {
        agentId,
        agentSequence: String(agentSequence),
        serverSequence: String(serverSequence),
        reason: 'state-went-back',
      },
      'the data of this server went back: an agent holds a newer bundle than there is; put backups back with assay restore, which moves such numbers on',
    )
  }
}
