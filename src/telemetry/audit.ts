import type { Clock } from '#base/clock.ts'
import { type LeftOut, LineLimit } from '#base/line-limit.ts'
import type { Log, LogFields } from '#base/log.ts'

/** What was decided about one request: who asked, what, from where, and how it ended. */
export interface Decision {
  /** What was asked for: a gRPC method's full name. */
  readonly action: string
  /** `refused`: we said no. `failed`: we could not say yes, and it is not the caller's doing. */
  readonly result: 'allowed' | 'refused' | 'failed'
  readonly requestId: string
  /** IP address and port, or the name of the local socket. */
  readonly address: string
  /** A SPIFFE ID, `uid=0 pid=12`, or empty when nobody has shown who they are. */
  readonly caller: string
  /** Name of a local caller's user, when it has one. */
  readonly user?: string
  /** What let the caller call: `root`, `unix_group ops`, `admin_ids`, `agent`. */
  readonly right?: string
  /** Whom or what it is about: an agent ID, entry id or endorsement key hash. */
  readonly subject?: string
  /** What needs the approval of others, in words; the id of that request; who agreed to it. */
  readonly asked?: string
  readonly approval?: string
  readonly approvedBy?: readonly string[]
  /** The node attestor's type; only attestations have it. */
  readonly attestationType?: string
  /** The stable name of the failed check. */
  readonly reason?: string
  /** Why not, for people; `why` in the record, of which the first 1,024 characters count. */
  readonly message?: string
  /** What else is worth keeping; never a secret. Keys and CSRs as their SHA-256. */
  readonly details?: LogFields
}

/** What the server changed by itself. */
export interface ServerChange {
  /** A stable name: `entry-expired`. */
  readonly action: string
  /** As in {@link Decision}. */
  readonly subject?: string
  readonly details?: LogFields
}

/** A node attestation that was refused. */
export interface Refusal {
  readonly atSeconds: number
  readonly requestId: string
  readonly address: string
  readonly attestationType: string
  readonly subject: string
  readonly reason: string
  readonly message: string
}

/** How many refusals are remembered; the oldest goes first. */
export const maxRefusals = 256

/** Most records, in ten seconds, of calls that were not allowed. What was allowed is always recorded. */
export const refusalBounds = { perSource: 60, total: 600 }

/** A refused caller chooses some of these texts. */
const maxTextLength = 1024

/**
 * Writes one record per decision to its own stream (the field `audit: true`) and remembers the last refused
 * attestations, so that an operator can ask why a node does not join. A caller who is refused again and again is
 * recorded up to {@link refusalBounds}, and then counted.
 */
export class Audit {
  readonly #log: Log
  readonly #clock: Clock
  readonly #refusals: Refusal[] = []
  readonly #limit: LineLimit

  /**
   * `log` must write whatever the log level is: `ProcessLog.unfiltered`. `onLeftOut` is told how many records were not
   * written, for counting.
   */
  constructor({
    log,
    clock,
    onLeftOut = () => {},
  }: {
    readonly log: Log
    readonly clock: Clock
    readonly onLeftOut?: (records: number) => void
  }) {
    this.#log = log.child({ audit: true })
    this.#clock = clock
    this.#limit = new LineLimit({
      clock,
      bounds: refusalBounds,
      onLeftOut: (leftOut) => {
        this.#recordLeftOut(leftOut)
        onLeftOut(leftOut.lines)
      },
    })
  }

  /** Records what is still to be said of refusals that have no record. */
  close(): void {
    this.#limit[Symbol.dispose]()
  }

  record(decision: Decision): void {
    const { details, message, ...fields } = decision
    // Not under its own name, which is the line's: of two members of one name readers see the last.
    const why = message !== undefined && { why: bounded(message) }
    if (decision.result === 'allowed' || this.#limit.admits(sourceOf(decision))) {
      this.#log.info({ ...details, ...fields, ...why }, `${decision.action} ${decision.result}`)
    }
    if (decision.result !== 'refused' || decision.attestationType === undefined) return
    if (this.#refusals.length === maxRefusals) this.#refusals.shift()
    this.#refusals.push({
      atSeconds: Math.floor(this.#clock.now().epochMilliseconds / 1000),
      requestId: bounded(decision.requestId),
      address: bounded(decision.address),
      attestationType: bounded(decision.attestationType),
      subject: bounded(decision.subject ?? ''),
      reason: bounded(decision.reason ?? ''),
      message: bounded(decision.message ?? ''),
    })
  }

  /** Writes a record of what the server did by itself, and nobody asked for at that moment. */
  change(change: ServerChange): void {
    const { details, ...fields } = change
    this.#log.info(
      { ...details, ...fields, result: 'allowed', caller: 'server' },
      `${change.action} by the server`,
    )
  }

  #recordLeftOut({ lines, seconds, sources }: LeftOut): void {
    this.#log.info(
      {
        action: 'refusals-not-recorded',
        result: 'refused',
        caller: 'server',
        lines,
        seconds,
        sources,
      },
      `${lines} more calls were not allowed in ${seconds} seconds, and have no record of their own`,
    )
  }

  /** The last refused attestations, newest first; `limit` zero: all that are remembered. */
  refusals(limit = 0): readonly Refusal[] {
    return this.#refusals.toReversed().slice(0, limit === 0 ? maxRefusals : limit)
  }
}

/** Another process of the same user, or another connection of the same client, is the same source. */
const sourceOf = ({ caller, address }: Decision): string =>
  bounded(caller === '' ? address : caller.replace(/ pid=\d+$/, ''))

const bounded = (text: string): string => text.slice(0, maxTextLength)
