import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import { type AuthorityContext, publishedAuthority } from './authority-context.ts'
import type { Dependents, Holders } from './holders.ts'
import type { AuthorityKindName, AuthorityRecord, IssuedRecord, RotationRecord } from './journal.ts'
import type { AuthorityRotator } from './rotator.ts'
import { revokeAuthority, taintAuthority } from './taint.ts'

/** How an operator wants a rotation to go. */
export interface RotationWishes {
  /** Take the predecessor out of use afterwards: taint it, wait until nothing depends on it, revoke it, destroy its key. */
  readonly retire: boolean
  /** Wait for nobody. */
  readonly force: boolean
  /**
   * Activate so long after the successor was published, whoever has it by then. Undefined: when every live node has
   * it, however long that takes, and no earlier than the configuration's `propagation_delay` after that.
   */
  readonly afterSeconds: number | undefined
  /**
   * Only go on with the rotation of this authority: when it is over it is done, and no other one is begun. Empty:
   * whichever is under way, or else a new one.
   */
  readonly predecessorId: string
}

/** What has just been done, or what is waited for. */
export type RotationStep =
  /** The rotation is written down. */
  | 'begun'
  /** The successor is made and published. */
  | 'prepared'
  /** Nodes do not have the successor yet. */
  | 'propagating'
  | 'activated'
  | 'tainted'
  /** SVIDs of the predecessor are still in use. */
  | 'replacing'
  /** The predecessor is out of the bundle, its key destroyed. */
  | 'revoked'
  | 'done'

/** Where a rotation is. */
export interface RotationProgress {
  readonly kind: AuthorityKindName
  readonly step: RotationStep
  /** Unix time. */
  readonly startedAtSeconds: number
  readonly predecessorId: string
  /** Empty until it is made. */
  readonly successorId: string
  /** Nodes this step concerns: those that are live, or at the beginning of `replacing` held SVIDs of the predecessor. */
  readonly nodes: number
  /** How many of them it does not wait for any more. */
  readonly nodesDone: number
  /** The others, the first {@link maxNamed} of them. */
  readonly waitingFor: readonly SpiffeId[]
  /** Nodes that are not there and are not waited for. */
  readonly away: number
  /** X.509-SVIDs of the predecessor that are still in use, as far as known. */
  readonly svids: number
  /** Unix time at which it goes on at the latest. Zero: not known. */
  readonly untilSeconds: number
  /** What else is waited for, in words; may be empty. */
  readonly detail: string
}

/** How many nodes are named. */
export const maxNamed = 20

/**
 * What a stream was sent is not yet what a process goes by: so long everything must have been well before the next
 * step that relies on it.
 */
const settleMs = 1000

type Facts = Partial<
  Pick<
    RotationProgress,
    'nodes' | 'nodesDone' | 'waitingFor' | 'away' | 'svids' | 'untilSeconds' | 'detail'
  >
>

/**
 * A rotation that an operator has asked for, in steps. It is written in the journal until it is done, so whoever asks
 * again, after an interruption of the call or of the server, goes on where it was. Calls must not overlap, with each
 * other or with those of the rotator.
 */
export class GuidedRotation {
  readonly #context: AuthorityContext
  readonly #rotator: AuthorityRotator
  readonly #holders: Holders
  readonly #clock: Clock
  readonly #log: Log
  /** Since when nothing stands in the way of a step; undefined: something does. */
  #clear: { readonly step: RotationStep; readonly sinceMs: number } | undefined
  /** The most nodes that were seen to hold SVIDs of the predecessor. */
  #mostDependents = 0

  constructor(
    context: AuthorityContext,
    deps: {
      readonly rotator: AuthorityRotator
      readonly holders: Holders
      readonly clock: Clock
      readonly log: Log
    },
  ) {
    this.#context = context
    this.#rotator = deps.rotator
    this.#holders = deps.holders
    this.#clock = deps.clock
    this.#log = deps.log
  }

  /**
   * Takes one step, or finds out why none can be taken yet.
   *
   * @throws AssayError `unavailable` while the key manager cannot be used or no authority is active;
   * `failed-precondition` when one is to be retired that an upstream authority has certified.
   */
  async advance(wishes: RotationWishes): Promise<RotationProgress> {
    const { records } = this.#context
    const { active } = records
    const { predecessorId } = wishes
    if (predecessorId !== '' && records.rotation?.predecessorId !== predecessorId) {
      const over = { predecessorId, startedAtSeconds: 0, retire: false }
      return this.#progress(over, 'done', {}, active?.issued.authorityId)
    }
    if (active === undefined) {
      throw new AssayError(
        'unavailable',
        `cannot rotate: no ${this.#context.kind.title} is active; see 'assay hsm status'`,
        { reason: 'no-active-authority' },
      )
    }
    const rotation = records.rotation
    if (rotation === undefined) {
      if (wishes.retire) this.#requireOwn(active)
      return this.#begin(active, wishes)
    }
    if (wishes.retire && !rotation.retire) {
      const { all } = records
      this.#requireOwn(all.find((one) => one.issued?.authorityId === rotation.predecessorId))
      await records.setRotation({ ...rotation, retire: true })
      return this.advance(wishes)
    }
    return active.issued.authorityId === rotation.predecessorId
      ? this.#replaceActive(rotation, active, wishes)
      : this.#retirePredecessor(rotation, active, wishes)
  }

  /** The bundle has only the root above such an authority, so that it cannot be taken out of use by itself. */
  #requireOwn(predecessor: AuthorityRecord | undefined): void {
    const issued = predecessor?.issued
    if (issued?.upstream === undefined) return
    throw new AssayError(
      'failed-precondition',
      `cannot retire ${issued.authorityId}: the bundle has the upstream authority's root for it; rotate without retiring, and 'assay authority taint x509 --subject-key-id' when the root itself is to go`,
      { reason: 'upstream-authority' },
    )
  }

  async #begin(active: IssuedRecord, { retire }: RotationWishes): Promise<RotationProgress> {
    const rotation = {
      predecessorId: active.issued.authorityId,
      startedAtSeconds: Math.floor(this.#nowMs() / 1000),
      retire,
    }
    await this.#context.records.setRotation(rotation)
    this.#clear = undefined
    this.#mostDependents = 0
    return this.#progress(rotation, 'begun')
  }

  async #replaceActive(
    rotation: RotationRecord,
    active: IssuedRecord,
    { force, afterSeconds }: RotationWishes,
  ): Promise<RotationProgress> {
    const { records, kind } = this.#context
    const { prepared } = records
    if (prepared?.keyType !== kind.keyType || kind.isOutdated(prepared.issued)) {
      await this.#rotator.prepare()
      return this.#progress(rotation, 'prepared')
    }
    const { live, lacking, away } = this.#holders.survey(this.#rotator.publishedIn(prepared.issued))
    const waitSeconds = afterSeconds ?? this.#rotator.propagationSeconds(active.issued)
    const dueSeconds = Math.ceil(prepared.issued.issuedAtSeconds + waitSeconds)
    const isDue = this.#nowMs() / 1000 >= dueSeconds
    const isClear = isDue && (afterSeconds !== undefined || lacking.length === 0)
    if (!force && !this.#hasSettled('propagating', isClear)) {
      return this.#progress(rotation, 'propagating', {
        nodes: live,
        nodesDone: live - lacking.length,
        waitingFor: lacking,
        away,
        untilSeconds: isDue ? 0 : dueSeconds,
      })
    }
    if (lacking.length > 0) {
      const late = { count: lacking.length, nodes: lacking.slice(0, maxNamed), force }
      this.#log.warn(late, `${kind.title} is activated although nodes do not have it yet`)
    }
    await this.#rotator.activate(prepared.issued.authorityId)
    this.#log.info(
      { authorityId: prepared.issued.authorityId, predecessorId: active.issued.authorityId },
      `${kind.title} has taken over`,
    )
    return this.#progress(rotation, 'activated', { nodes: live, nodesDone: live - lacking.length })
  }

  async #retirePredecessor(
    rotation: RotationRecord,
    active: IssuedRecord,
    { force, retire }: RotationWishes,
  ): Promise<RotationProgress> {
    const { records } = this.#context
    const { predecessorId } = rotation
    // Who only wants another authority to sign does not end what somebody else has left to end in its time.
    const isForced = force && retire
    const predecessor = records.old.find(({ issued }) => issued.authorityId === predecessorId)
    const published = publishedAuthority(this.#context, predecessorId)
    if (!rotation.retire || predecessor === undefined || published === undefined) {
      await records.setRotation(undefined)
      return this.#progress(rotation, 'done', {}, active.issued.authorityId)
    }
    if (!published.tainted) {
      await taintAuthority(this.#context, predecessorId)
      return this.#progress(rotation, 'tainted')
    }
    const remains = this.#remains(predecessor)
    if (!isForced && !this.#hasSettled('replacing', remains === undefined)) {
      return this.#progress(rotation, 'replacing', remains ?? {})
    }
    await revokeAuthority(this.#context, predecessorId)
    await this.#rotator.retire()
    return this.#progress(rotation, 'revoked')
  }

  /** What still depends on an authority; undefined: nothing. */
  #remains(record: IssuedRecord): Facts | undefined {
    const { records, kind } = this.#context
    const { authorityId, issuedAtSeconds } = record.issued
    const untilSeconds = records.signedUntilSeconds(record)
    if (untilSeconds <= this.#nowMs() / 1000) return undefined
    if (kind.name === 'jwt') {
      return { untilSeconds, detail: 'tokens that it signed are valid until then' }
    }
    const found = this.#holders.dependents({ authorityId, sinceSeconds: issuedAtSeconds })
    const waitingFor = [...found.nodes, ...found.unknown]
    const isMinted = (record.mintedUntilSeconds ?? 0) > this.#nowMs() / 1000
    // A signature that an HSM takes its time over is with nobody who could be asked.
    const isSigning = records.isSigning(record)
    if (waitingFor.length === 0 && !found.server && !isMinted && !isSigning) return undefined
    this.#mostDependents = Math.max(this.#mostDependents, waitingFor.length)
    return {
      nodes: this.#mostDependents,
      nodesDone: this.#mostDependents - waitingFor.length,
      waitingFor,
      svids: found.svids,
      untilSeconds,
      detail: describe(found, { isMinted, isSigning }),
    }
  }

  #hasSettled(step: RotationStep, isClear: boolean): boolean {
    if (!isClear) {
      this.#clear = undefined
      return false
    }
    const nowMs = this.#nowMs()
    // A clock that was set back begins anew.
    if (this.#clear?.step !== step || this.#clear.sinceMs > nowMs) {
      this.#clear = { step, sinceMs: nowMs }
    }
    return nowMs - this.#clear.sinceMs >= settleMs
  }

  #progress(
    { predecessorId, startedAtSeconds }: RotationRecord,
    step: RotationStep,
    { waitingFor = [], ...facts }: Facts = {},
    successor = '',
  ): RotationProgress {
    const { records, kind } = this.#context
    const { active, prepared } = records
    const successorId =
      successor ||
      (active?.issued.authorityId === predecessorId
        ? (prepared?.issued.authorityId ?? '')
        : (active?.issued.authorityId ?? ''))
    return {
      kind: kind.name,
      step,
      startedAtSeconds,
      predecessorId,
      successorId,
      nodes: 0,
      nodesDone: 0,
      away: 0,
      svids: 0,
      untilSeconds: 0,
      detail: '',
      ...facts,
      waitingFor: waitingFor.slice(0, maxNamed),
    }
  }

  #nowMs(): number {
    return this.#clock.now().epochMilliseconds
  }
}

function describe(
  { server, unknown }: Dependents,
  { isMinted, isSigning }: { readonly isMinted: boolean; readonly isSigning: boolean },
): string {
  const reasons: string[] = []
  if (isSigning) reasons.push('it still signs what it was asked for before')
  if (server) reasons.push('the server still shows an SVID of it')
  if (unknown.length > 0) {
    const nodes = unknown.length === 1 ? '1 node has' : `${unknown.length} nodes have`
    reasons.push(`${nodes} not said what ${unknown.length === 1 ? 'it holds' : 'they hold'}`)
  }
  if (isMinted)
    reasons.push(
      'an SVID that was minted by hand, or the CA of a downstream server, is valid until then',
    )
  return reasons.join('; ')
}
