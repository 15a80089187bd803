import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { isAlive, verifySameProcess } from '#host/process.ts'
import type { Peer, UnixPeer } from '#rpc/call.ts'
import { type Selector, selectorSet } from '#spiffe/selector.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import type {
  WorkloadAttestor,
  WorkloadProcess,
} from '../plugin/workload-attestor/workload-attestor.ts'

export interface WorkloadAttestationOptions {
  readonly attestors: readonly WorkloadAttestor[]
  readonly metrics: Metrics
  readonly log: Log
}

/** Finds out what the process at the other end of a connection is. Nothing is remembered from one call to the next. */
export class WorkloadAttestation {
  /** Those that calls from now on go by. */
  attestors: readonly WorkloadAttestor[]
  readonly #options: Omit<WorkloadAttestationOptions, 'attestors'>

  constructor({ attestors, ...options }: WorkloadAttestationOptions) {
    this.attestors = attestors
    this.#options = options
  }

  /**
   * The selectors of a peer, sorted and without repetition. An attestor that fails is passed over as long as
   * another one succeeds.
   *
   * @throws AssayError `permission-denied`, reason `workload-gone` or `workload-changed`, when the process is not
   *   the one that connected; `unavailable` when no attestor could say anything.
   */
  async attestPeer(peer: Peer, signal: AbortSignal): Promise<readonly Selector[]> {
    if (peer.kind !== 'unix') {
      throw new AssayError('permission-denied', 'only local processes are attested', {
        reason: 'workload-not-local',
      })
    }
    const { pid, uid, gid } = peer
    return this.attest({ pid, uid, gid, assertSame: () => assertSamePeer(peer) }, signal)
  }

  /** {@link attestPeer} for a process that is held in another way. */
  async attest(process: WorkloadProcess, signal: AbortSignal): Promise<readonly Selector[]> {
    process.assertSame()
    const { attestors } = this
    const found: Selector[] = []
    let failed = 0
    if (attestors.length === 1 && attestors[0] !== undefined) {
      // The usual case, and the hottest path of the agent.
      found.push(...((await this.#attestBy(attestors[0], process, signal)) ?? []))
      failed = found.length === 0 ? 1 : 0
    } else {
      const results = await Promise.all(
        attestors.map((attestor) => this.#attestBy(attestor, process, signal)),
      )
      for (const result of results) found.push(...(result ?? []))
      failed = results.filter((result) => result === undefined).length
    }
    signal.throwIfAborted()
    process.assertSame()
    if (failed === attestors.length) {
      throw new AssayError('unavailable', 'workload attestation failed', {
        reason: 'workload-attestation-failed',
      })
    }
    return selectorSet(found)
  }

  /** What is true of every process of a user, as far as the attestors know users. */
  async attestUser(user: string): Promise<readonly Selector[]> {
    const found: Selector[] = []
    for (const attestor of this.attestors) {
      found.push(...((await attestor.attestUser?.(user)) ?? []))
    }
    return selectorSet(found)
  }

  async #attestBy(
    attestor: WorkloadAttestor,
    process: WorkloadProcess,
    signal: AbortSignal,
  ): Promise<readonly Selector[] | undefined> {
    const { metrics, log } = this.#options
    const counted = { kind: 'workload', attestor: attestor.type } as const
    try {
      const selectors = await attestor.attest(process, signal)
      metrics.attestation({ ...counted, outcome: 'allowed' })
      return selectors
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof AssayError && error.code === 'permission-denied') {
        metrics.attestation({ ...counted, outcome: 'refused', reason: error.reason ?? '' })
        throw error
      }
      metrics.attestation({ ...counted, outcome: 'failed' })
      log.warn(
        { attestor: attestor.type, pid: process.pid, error: messageOf(error) },
        'a workload attestor failed',
      )
      return undefined
    }
  }
}

/**
 * As long as the process of a pidfd lives nobody else can have its number, which is quick to find out. Only without a
 * pidfd, or when it has ended, is there more to be looked at and said.
 *
 * @throws AssayError `permission-denied`, reason `workload-gone`.
 */
function assertSamePeer(peer: UnixPeer): void {
  if (peer.pidfd !== undefined && peer.startTime !== 0n && isAlive(peer.pidfd)) return
  verifySameProcess(peer)
}
