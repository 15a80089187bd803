import type { Clock } from '#base/clock.ts'
import type { CallContext } from '#rpc/call.ts'
import type { Selector } from '#spiffe/selector.ts'

/** A call of the Workload API that was refused. */
export interface WorkloadRefusal {
  /** Unix time. */
  readonly atSeconds: number
  readonly requestId: string
  /** `/SpiffeWorkloadAPI/FetchX509SVID`. */
  readonly method: string
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** What the caller was found to be; empty when it was refused before that was known. */
  readonly selectors: readonly Selector[]
  /** The stable name of why: `no-identity-issued`. */
  readonly reason: string
}

const maxRemembered = 256

/** The last refused calls, so that an operator can ask why. */
export class Refusals {
  readonly #clock: Clock
  /** Oldest first. */
  readonly #refusals: WorkloadRefusal[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  record(
    context: CallContext,
    { selectors, reason }: { readonly selectors: readonly Selector[]; readonly reason: string },
  ): void {
    const { peer } = context
    const caller =
      peer.kind === 'unix'
        ? { pid: peer.pid, uid: peer.uid, gid: peer.gid }
        : { pid: 0, uid: 0, gid: 0 }
    if (this.#refusals.length === maxRemembered) this.#refusals.shift()
    this.#refusals.push({
      atSeconds: Math.trunc(this.#clock.now().epochMilliseconds / 1000),
      requestId: context.requestId,
      method: context.method,
      ...caller,
      selectors,
      reason,
    })
  }

  /** Newest first; `limit` zero: all that are remembered (256). */
  list(limit = 0): readonly WorkloadRefusal[] {
    return this.#refusals.toReversed().slice(0, limit === 0 ? maxRemembered : limit)
  }

  find(requestId: string): WorkloadRefusal | undefined {
    return this.#refusals.find((refusal) => refusal.requestId === requestId)
  }
}
