import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { runTasks } from '#base/tasks.ts'
import { rotationFraction } from '#spiffe/rotation.ts'
import { type AgentEntry, isSameRevision } from './agent-entry.ts'
import { Alarm } from './alarm.ts'
import { Schedule } from './schedule.ts'
import type { AuthorityTrust, X509Signer, X509Svid, X509SvidState } from './x509-svid.ts'

export interface X509SvidCacheOptions {
  readonly signer: X509Signer
  /** What the own bundle says of an authority now. */
  readonly trustOf: (authorityId: string) => AuthorityTrust
  /** Fetches the own bundle anew: an SVID was signed by an authority that it lacks. */
  readonly refreshBundle: (signal: AbortSignal) => Promise<void>
  /** Waits until the verifiers on this node know these authorities. */
  readonly untilKnown: (authorityIds: ReadonlySet<string>, signal: AbortSignal) => Promise<void>
  /** When what a tainted authority signed is to be replaced. Unix time. */
  readonly replaceAtMs: (authorityId: string) => number
  /** Called with the ids of entries whose SVID came, was replaced or went. */
  readonly onChanged: (entryIds: readonly string[]) => void
  /** How many SVIDs are held at most, those in use not counted. */
  readonly maxSize: number
  /** Whether a stream shows the identity of this entry now. */
  readonly isInUse: (entryId: string) => boolean
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

interface Slot {
  entry: AgentEntry
  svid: X509Svid | undefined
  refusal: AssayError | undefined
  /** Why the last attempt brought nothing; cleared by an SVID. */
  failure: AssayError | undefined
  /** Its SVID was taken away because its authority is revoked, and the next one is not there yet. */
  isWithdrawn: boolean
}

const largestBatch = 500
/** When to ask again after a refusal, or an SVID that is tainted from the start. */
const retryMs = 10_000
/** SVIDs that fall due this close together are signed in one call. */
const gatherMs = 2_000

/**
 * The X.509-SVIDs of all entries: signed ahead in batches, replaced around half of their life so that no
 * workload waits, kept while the server is away, and never given out once expired.
 */
export class X509SvidCache {
  readonly #options: X509SvidCacheOptions
  readonly #slots = new Map<string, Slot>()
  /** Slots with an SVID, least recently used first. */
  readonly #held = new Map<string, Slot>()
  /** To be signed next, because someone waits. */
  readonly #urgent = new Set<Slot>()
  readonly #queued = new Set<Slot>()
  readonly #signing = new Set<Slot>()
  readonly #renewals = new Schedule<Slot>()
  readonly #expiries = new Schedule<Slot>()
  readonly #signAlarm: Alarm
  readonly #expiryAlarm: Alarm
  readonly #backoff: Backoff
  readonly #waiting = new Set<{ readonly isDone: () => boolean; readonly resolve: () => void }>()
  #batchSize = largestBatch

  constructor(options: X509SvidCacheOptions) {
    this.#options = options
    this.#signAlarm = new Alarm(options.clock)
    this.#expiryAlarm = new Alarm(options.clock)
    this.#backoff = new Backoff({
      first: Temporal.Duration.from({ milliseconds: 500 }),
      longest: Temporal.Duration.from({ seconds: 15 }),
      random: options.random,
    })
  }

  /** How many SVIDs are held. */
  get size(): number {
    return this.#held.size
  }

  /** When the first of those that are held expires, Unix time; undefined: none is held. */
  get firstExpiryMs(): number | undefined {
    return this.#expiries.nextMs()
  }

  /** Those that are held. */
  *svids(): Generator<X509Svid> {
    for (const { svid } of this.#held.values()) if (svid !== undefined) yield svid
  }

  stateOf(entryId: string): X509SvidState {
    const slot = this.#slots.get(entryId)
    if (slot === undefined) return { state: 'unknown' }
    if (slot.svid !== undefined && slot.svid.expiresAtMs > this.#nowMs()) {
      return { state: 'held', svid: slot.svid }
    }
    if (slot.refusal !== undefined) return { state: 'refused', error: slot.refusal }
    if (slot.failure !== undefined) return { state: 'unavailable', error: slot.failure }
    return { state: 'pending', isReplacement: slot.isWithdrawn }
  }

  /** A new entry, or a new revision of a held one: its SVID is replaced while the old one is still given out. */
  setEntry(entry: AgentEntry): void {
    const slot = this.#slots.get(entry.id)
    if (slot === undefined) {
      const added: Slot = {
        entry,
        svid: undefined,
        refusal: undefined,
        failure: undefined,
        isWithdrawn: false,
      }
      this.#slots.set(entry.id, added)
      if (!entry.disableX509SvidPrefetch && this.#wantedCount() < this.#options.maxSize) {
        this.#queue(added)
      }
      return
    }
    const renamed = slot.entry.spiffeId !== entry.spiffeId
    const revised = !isSameRevision(slot.entry, entry)
    slot.entry = entry
    if (renamed) this.#drop(slot)
    if (revised && (slot.svid !== undefined || renamed || slot.refusal !== undefined)) {
      slot.refusal = undefined
      this.#queue(slot)
    }
  }

  /** The entry is gone: its SVID is given out no more, from this moment. */
  deleteEntry(entryId: string): void {
    const slot = this.#slots.get(entryId)
    if (slot === undefined) return
    this.#slots.delete(entryId)
    this.#drop(slot)
    this.#urgent.delete(slot)
    this.#queued.delete(slot)
    this.#renewals.delete(slot)
    this.#settle()
  }

  /** Forgets every entry and every key. */
  clear(): void {
    for (const id of [...this.#slots.keys()]) this.deleteEntry(id)
  }

  /**
   * The own bundle has changed: what chains to a revoked authority is withdrawn and replaced now, to a tainted one
   * replaced when this agent's moment for it has come.
   */
  authoritiesChanged(): void {
    const withdrawn: string[] = []
    for (const slot of [...this.#held.values()]) {
      const { svid } = slot
      if (svid === undefined) continue
      const trust = this.#options.trustOf(svid.authorityId)
      if (trust === 'trusted') continue
      if (trust === 'tainted') {
        this.#replaceBy(slot, this.#options.replaceAtMs(svid.authorityId))
        continue
      }
      this.#drop(slot)
      slot.isWithdrawn = true
      withdrawn.push(slot.entry.id)
      this.#queue(slot)
    }
    if (withdrawn.length > 0) this.#options.onChanged(withdrawn)
  }

  /** Marks an entry as used now, and has its SVID signed before all others when there is none. */
  want(entryId: string): void {
    const slot = this.#slots.get(entryId)
    if (slot === undefined) return
    if (slot.svid !== undefined) {
      this.#held.delete(entryId)
      this.#held.set(entryId, slot)
    } else if (slot.refusal === undefined && !this.#signing.has(slot)) {
      this.#urgent.add(slot)
      // What failed is tried again when the wait between attempts is over, not at each caller's wish.
      if (slot.failure === undefined) this.#signAlarm.ring()
    }
  }

  /** Waits until none of the entries is pending. */
  async settled(entryIds: readonly string[], signal: AbortSignal): Promise<void> {
    const isDone = (): boolean => entryIds.every((id) => this.stateOf(id).state !== 'pending')
    if (isDone()) return
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter = { isDone, resolve }
    const onAbort = (): void => reject(signal.reason)
    this.#waiting.add(waiter)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await promise
    } finally {
      this.#waiting.delete(waiter)
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** The server is back: no use in waiting longer. */
  retryNow(): void {
    this.#backoff.reset()
    this.#signAlarm.ring()
  }

  async run(signal: AbortSignal): Promise<void> {
    await runTasks(signal, [(s) => this.#runSigning(s), (s) => this.#runExpiry(s)])
  }

  async #runSigning(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted()
      const batch = this.#takeBatch()
      if (batch.length === 0) {
        await this.#signAlarm.wait(this.#renewals.nextMs(), signal)
        continue
      }
      for (const slot of batch) this.#signing.add(slot)
      try {
        await this.#signBatch(batch, signal)
        this.#backoff.reset()
        this.#batchSize = Math.min(largestBatch, this.#batchSize * 2)
      } catch (error) {
        signal.throwIfAborted()
        this.#batchFailed(batch, error)
        await this.#signAlarm.wait(
          this.#options.clock.now().add(this.#backoff.next()).epochMilliseconds,
          signal,
        )
      } finally {
        for (const slot of batch) this.#signing.delete(slot)
      }
    }
  }

  async #runExpiry(signal: AbortSignal): Promise<void> {
    for (;;) {
      const expired = this.#expiries.takeDue(this.#nowMs())
      for (const slot of expired) {
        this.#drop(slot)
        slot.failure ??= new AssayError('unavailable', 'the X.509-SVID has expired')
        this.#options.log.error(
          { entryId: slot.entry.id, spiffeId: slot.entry.spiffeId, error: slot.failure },
          'an X.509-SVID has expired before it could be replaced',
        )
      }
      if (expired.length > 0) {
        this.#settle()
        this.#options.onChanged(expired.map((slot) => slot.entry.id))
      }
      await this.#expiryAlarm.wait(this.#expiries.nextMs(), signal)
    }
  }

  #takeBatch(): Slot[] {
    for (const slot of this.#renewals.takeDue(this.#nowMs())) this.#queued.add(slot)
    if (this.#queued.size > 0) {
      for (const slot of this.#renewals.takeDue(this.#nowMs() + gatherMs)) this.#queued.add(slot)
    }
    // Who waits does not wait for the signing of what nobody has asked for yet.
    const queue = this.#urgent.size > 0 ? this.#urgent : this.#queued
    const batch = [...queue].slice(0, this.#batchSize)
    for (const slot of batch) {
      this.#urgent.delete(slot)
      this.#queued.delete(slot)
    }
    return batch
  }

  async #signBatch(batch: readonly Slot[], signal: AbortSignal): Promise<void> {
    const entries = batch.map((slot) => slot.entry)
    const results = await this.#options.signer.sign(entries, signal)
    await this.#makeKnown(results, signal)
    const changed: string[] = []
    let unusable: AssayError | undefined
    for (const [i, slot] of batch.entries()) {
      const entry = entries[i]
      const result = results[i]
      if (entry === undefined || result === undefined) {
        throw new AssayError(
          'internal',
          'the server answered for fewer entries than were asked for',
        )
      }
      if (this.#slots.get(slot.entry.id) !== slot) continue
      if (!isSameRevision(slot.entry, entry)) {
        this.#queue(slot)
        if (slot.entry.spiffeId !== entry.spiffeId) continue
      }
      if (result instanceof AssayError) {
        this.#refused(slot, result)
        continue
      }
      const problem = this.#problemOf(result)
      if (problem !== undefined) {
        slot.failure = problem
        this.#queued.add(slot)
        unusable = problem
        continue
      }
      this.#install(slot, result)
      changed.push(slot.entry.id)
    }
    changed.push(...this.#evict())
    this.#settle()
    if (changed.length > 0) this.#options.onChanged(changed)
    if (unusable !== undefined) throw unusable
  }

  /** No SVID is given out before verifiers know its authority. */
  async #makeKnown(
    results: readonly (X509Svid | AssayError)[],
    signal: AbortSignal,
  ): Promise<void> {
    const { trustOf, refreshBundle, untilKnown } = this.#options
    const authorityIds = new Set(
      results.flatMap((result) => (result instanceof AssayError ? [] : result.authorityId)),
    )
    const isStrange = (id: string): boolean => trustOf(id) === 'unknown'
    // The server has begun to sign with a new authority, and its bundle is still on the way here.
    if (authorityIds.values().some(isStrange)) await refreshBundle(signal)
    const known = [...authorityIds].filter((id) => !isStrange(id))
    await untilKnown(new Set(known), signal)
  }

  /** Why a signed SVID must not be given out. */
  #problemOf(svid: X509Svid): AssayError | undefined {
    if (this.#options.trustOf(svid.authorityId) === 'unknown') {
      return new AssayError(
        'unavailable',
        `cannot use the X.509-SVID for ${svid.spiffeId}: its authority is not in the trust domain's bundle`,
      )
    }
    if (svid.expiresAtMs <= this.#nowMs()) {
      return new AssayError(
        'unavailable',
        `cannot use the X.509-SVID for ${svid.spiffeId}: by the clock of this node it has already expired; check the clock`,
      )
    }
    return undefined
  }

  #install(slot: Slot, svid: X509Svid): void {
    slot.svid = svid
    slot.failure = undefined
    slot.refusal = undefined
    slot.isWithdrawn = false
    this.#held.delete(slot.entry.id)
    this.#held.set(slot.entry.id, slot)
    this.#renewals.set(slot, this.#renewalMs(svid))
    this.#expiries.set(slot, svid.expiresAtMs)
    this.#expiryAlarm.ring()
  }

  /** Around half of its life. One that is tainted from the start is not asked for again at once, but before long. */
  #renewalMs(svid: X509Svid): number {
    const nowMs = this.#nowMs()
    const share = 1 - rotationFraction(this.#options.random)
    const halfLifeMs = nowMs + (svid.expiresAtMs - nowMs) * share
    if (this.#options.trustOf(svid.authorityId) !== 'tainted') return halfLifeMs
    const replaceAtMs = this.#options.replaceAtMs(svid.authorityId)
    return Math.min(halfLifeMs, Math.max(nowMs + retryMs, replaceAtMs))
  }

  #refused(slot: Slot, error: AssayError): void {
    slot.refusal = error
    this.#renewals.set(slot, this.#nowMs() + retryMs)
    this.#options.log.warn(
      { entryId: slot.entry.id, spiffeId: slot.entry.spiffeId, error },
      'the server does not sign an X.509-SVID',
    )
  }

  #batchFailed(batch: readonly Slot[], error: unknown): void {
    const failure = new AssayError(
      'unavailable',
      'cannot get the X.509-SVID: the server could not be asked',
      { cause: error },
    )
    for (const slot of batch) {
      if (this.#slots.get(slot.entry.id) !== slot) continue
      if (slot.svid === undefined && slot.refusal === undefined) slot.failure ??= failure
      if (!this.#isScheduled(slot)) this.#queued.add(slot)
    }
    this.#batchSize = Math.max(1, this.#batchSize >> 1)
    this.#options.log.warn(
      { error: messageOf(error), entries: batch.length },
      'cannot get X.509-SVIDs signed',
    )
    this.#settle()
  }

  /** Whether a part of a failed batch has had its own outcome. */
  #isScheduled(slot: Slot): boolean {
    return this.#queued.has(slot) || this.#renewals.has(slot)
  }

  #queue(slot: Slot): void {
    this.#renewals.delete(slot)
    this.#queued.add(slot)
    this.#signAlarm.ring()
  }

  /** Has an SVID replaced at `atMs`, or when it is due anyhow if that is earlier. */
  #replaceBy(slot: Slot, atMs: number): void {
    // What is under way has its own outcome: another SVID, or another attempt soon.
    if (this.#queued.has(slot) || this.#signing.has(slot)) return
    const dueMs = this.#renewals.timeOf(slot) ?? Number.POSITIVE_INFINITY
    if (atMs <= this.#nowMs()) {
      this.#queue(slot)
    } else if (atMs < dueMs) {
      this.#renewals.set(slot, atMs)
      this.#signAlarm.ring()
    }
  }

  /** Takes an SVID out of use; the entry stays. */
  #drop(slot: Slot): void {
    slot.svid = undefined
    this.#held.delete(slot.entry.id)
    this.#expiries.delete(slot)
  }

  #evict(): string[] {
    const evicted: string[] = []
    let excess = this.#held.size - this.#options.maxSize
    for (const [id, slot] of this.#held) {
      if (excess <= 0) break
      if (this.#options.isInUse(id)) continue
      this.#drop(slot)
      this.#renewals.delete(slot)
      this.#queued.delete(slot)
      evicted.push(id)
      excess -= 1
    }
    return evicted
  }

  #settle(): void {
    for (const waiter of this.#waiting) if (waiter.isDone()) waiter.resolve()
  }

  #wantedCount(): number {
    return this.#held.size + this.#urgent.size + this.#queued.size + this.#signing.size
  }

  #nowMs(): number {
    return this.#options.clock.now().epochMilliseconds
  }
}
