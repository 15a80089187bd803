import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { IssueTime } from '../ca/issue-time.ts'
import type { KeyManager, SigningKey } from '../plugin/key-manager/key-manager.ts'
import { type AuthorityContext, publicationOf } from './authority-context.ts'
import type { PublishedAuthority } from './authority-kind.ts'
import type { Holders } from './holders.ts'
import type { AuthorityRecord, IssuedAuthority, IssuedRecord } from './journal.ts'
import {
  activateAtLatestSeconds,
  keepExpiredSeconds,
  otherSlot,
  propagationSeconds,
  type Slot,
  shouldActivate,
  shouldPrepare,
} from './slot.ts'

/**
 * How many old authorities of a kind there may be before none is made by hand: the journal and the bundle have all of
 * them, and must stay small enough to be read. By the time of day there are never more than a few.
 */
export const maxOldAuthorities = 128

/** The authority that signs now. */
export interface ActiveAuthority {
  readonly issued: IssuedAuthority
  readonly key: SigningKey
}

/**
 * The authorities of one kind over time. Each step is written down before it is done, and doing it again comes
 * to the same, so a server that dies anywhere carries on where it was, with the same key. Calls must not
 * overlap.
 */
export class AuthorityRotator {
  readonly #context: AuthorityContext
  readonly #keyManager: KeyManager
  readonly #time: IssueTime
  readonly #log: Log
  readonly #holders: Pick<Holders, 'survey'>
  readonly #propagationDelaySeconds: number
  /** Sequence number of the first bundle an authority was seen in. */
  readonly #publishedIn = new Map<string, bigint>()
  /** The prepared authority of which the log says already that it waits for nodes. */
  #lateFor = ''
  #active: ActiveAuthority | undefined

  constructor(
    context: AuthorityContext,
    deps: {
      readonly keyManager: KeyManager
      readonly time: IssueTime
      readonly log: Log
      readonly holders: Pick<Holders, 'survey'>
      readonly propagationDelaySeconds: number
    },
  ) {
    this.#context = context
    this.#keyManager = deps.keyManager
    this.#time = deps.time
    this.#log = deps.log
    this.#holders = deps.holders
    this.#propagationDelaySeconds = deps.propagationDelaySeconds
  }

  get active(): ActiveAuthority | undefined {
    return this.#active
  }

  /**
   * Brings everything to where it should be now. Afterwards there is an active authority, whatever was lost.
   *
   * @throws AssayError `unavailable` when the key manager cannot be used or the clock went back.
   */
  async round(): Promise<void> {
    this.#checkKeyManager()
    await this.#dropUnfit()
    await this.#finishPreparation()
    await this.#carryOn()
    await this.#keepReady()
    await this.#prune()
    await this.retire()
  }

  /** How long the successor of `active` has been published before it signs. */
  propagationSeconds(active: IssuedAuthority): number {
    return propagationSeconds(active, this.#propagationDelaySeconds)
  }

  /** Sequence number of the bundle that is known wherever `authority` is. */
  publishedIn({ authorityId }: IssuedAuthority): bigint {
    const known = this.#publishedIn.get(authorityId)
    if (known !== undefined) return known
    const { sequenceNumber } = this.#context.bundle.present
    this.#publishedIn.set(authorityId, sequenceNumber)
    return sequenceNumber
  }

  /**
   * Makes a successor now. One that was prepared before and has never signed becomes old.
   *
   * @throws AssayError `failed-precondition`, reason `too-many-authorities`, while {@link maxOldAuthorities} are old.
   */
  async prepare(): Promise<void> {
    const { kind, records } = this.#context
    const { length } = records.old
    if (length >= maxOldAuthorities) {
      throw new AssayError(
        'failed-precondition',
        `cannot prepare another ${kind.title}: ${length} old ones are in the bundle; taint and revoke some, or wait until they have expired`,
        { reason: 'too-many-authorities' },
      )
    }
    await this.#prepare()
  }

  async #prepare(): Promise<void> {
    this.#checkKeyManager()
    if (this.#context.records.preparing === undefined) await this.#begin()
    await this.#finishPreparation()
  }

  /**
   * Lets the prepared authority take over now.
   *
   * @throws AssayError `invalid-argument` unless `authorityId` is the prepared one; `failed-precondition` when none is.
   */
  async activate(authorityId: string): Promise<void> {
    const { kind, records } = this.#context
    const { prepared } = records
    const refuse = (code: 'invalid-argument' | 'failed-precondition', why: string): AssayError =>
      new AssayError(code, `cannot activate ${authorityId} (${kind.title}): ${why}`, {
        reason: 'authority-state',
      })
    if (authorityId === '') throw refuse('invalid-argument', 'no authority id is given')
    if (prepared === undefined) throw refuse('failed-precondition', 'none is prepared')
    if (prepared.issued.authorityId !== authorityId) {
      throw refuse('invalid-argument', `${prepared.issued.authorityId} is the prepared one`)
    }
    this.#checkKeyManager()
    const place = this.#keyManager.place?.(prepared.keyId)
    if (place?.isUp === false) {
      throw new AssayError(
        'unavailable',
        `cannot activate ${authorityId} (${kind.title}): its key does not sign, in ${place.where}; bring that back, or prepare another one with 'assay authority prepare'`,
        { reason: 'key-manager-down' },
      )
    }
    await this.#activate(prepared)
  }

  /** Destroys the keys of old authorities that are in the bundle no more, then forgets them. */
  async retire(): Promise<void> {
    const { kind, records } = this.#context
    for (const { issued, keyId } of records.old) {
      if (!this.#isGone(issued) || this.#isAway(keyId)) continue
      await this.#keyManager.destroyKey(keyId)
      await records.update((record) => (record.keyId === keyId ? undefined : record))
      this.#publishedIn.delete(issued.authorityId)
      this.#log.info({ authorityId: issued.authorityId, keyId }, `${kind.title} is retired`)
      this.#context.tell('retired', issued.authorityId)
    }
  }

  /** In the bundle no more; or, where a root stands for it there, as long ago expired as takes one out of it. */
  #isGone(issued: IssuedAuthority): boolean {
    if (publicationOf(this.#context, issued) === undefined) return true
    if (issued.upstream === undefined) return false
    return issued.expiresAtSeconds + keepExpiredSeconds < this.#time.now()
  }

  /** Makes old what can never sign again; its successor then takes over at once. */
  async #dropUnfit(): Promise<void> {
    const { kind, records } = this.#context
    for (const record of records.all) {
      const { issued, keyId } = record
      if (issued === undefined || record.state === 'old') continue
      const why = this.#whyUnfit(record, issued)
      if (why === undefined) continue
      await records.replace({ ...record, state: 'old', issued })
      if (this.#active?.key.id === keyId) this.#active = undefined
      const { authorityId } = issued
      this.#log.warn({ authorityId, keyId, why }, `${kind.title} cannot be used any more`)
      this.#context.tell('dropped', authorityId)
    }
  }

  #whyUnfit(record: AuthorityRecord, issued: IssuedAuthority): string | undefined {
    const key = this.#keyManager.key(record.keyId)
    if (key === undefined && !this.#isAway(record.keyId)) {
      return 'the key manager does not have its key'
    }
    if (key !== undefined && !this.#context.kind.fits(issued, key)) {
      return 'it is not for the key of that name'
    }
    if (issued.expiresAtSeconds <= this.#time.now()) return 'it has expired'
    if (record.state === 'preparing') return undefined
    const published = publicationOf(this.#context, issued)
    if (published === undefined) return 'it is not in the bundle'
    return published.tainted ? 'it is tainted' : undefined
  }

  /** Writes down that a successor is to be made, and the name of its key, before there is a key. */
  async #begin(): Promise<void> {
    const { kind, records } = this.#context
    const now = this.#time.now()
    const slot = records.active === undefined ? 'A' : otherSlot(records.active.slot)
    await records.update(
      (record) => (record.state === 'prepared' ? { ...record, state: 'old' } : record),
      [
        {
          slot,
          keyId: this.#newKeyId(slot, now),
          keyType: kind.keyType,
          startedAtSeconds: now,
          signedUntilSeconds: 0,
          state: 'preparing',
          issued: undefined,
        },
      ],
    )
  }

  /** Key, authority, bundle: each step is passed over when it has been done before. */
  async #finishPreparation(): Promise<void> {
    const { kind, records, bundle } = this.#context
    const begun = records.preparing
    if (begun === undefined) return
    const { keyId, keyType, slot } = begun
    await this.#destroyOldKeys()
    const key =
      this.#keyManager.key(keyId) ??
      (await this.#keyManager.generateKey(keyId, keyType, records.active?.keyId))
    const issued = begun.issued ?? (await kind.issue(key, this.#time.now()))
    // Known here before it is public, or a crash would leave it in the bundle and nobody would answer for it.
    if (begun.issued === undefined) await records.replace({ ...begun, issued })
    await bundle.update((present) => kind.withAuthority(present, issued))
    this.publishedIn(issued)
    await records.replace({ ...begun, state: 'prepared', issued })
    const { authorityId } = issued
    this.#log.info({ authorityId, keyId, slot }, `${kind.title} is prepared`)
    this.#context.tell('prepared', authorityId)
  }

  /** Prepares and activates when it is time, or at once when nothing is active. */
  async #carryOn(): Promise<void> {
    const { kind, records } = this.#context
    const now = this.#time.now()
    const { active } = records
    const isOutdated = active !== undefined && kind.isOutdated(active.issued)
    if (active === undefined) {
      const isReady = records.prepared !== undefined && !this.#isAway(records.prepared.keyId)
      if (!isReady) await this.#prepare()
    } else {
      if (await this.#promoted(active, now)) return
      const isKnown = this.#keyManager.key(active.keyId) !== undefined
      if (isKnown || !this.#isAway(active.keyId)) this.#use(active)
      const isTime = shouldPrepare(active.issued, now) && kind.wouldOutlast(active.issued)
      const isReady =
        records.prepared !== undefined &&
        !kind.isOutdated(records.prepared.issued) &&
        !(isTime && this.#isStale(records.prepared, now)) &&
        !(shouldActivate(active.issued, now) && this.#isAway(records.prepared.keyId))
      if (!isReady && (isTime || isOutdated)) await this.#prepare()
    }
    const { prepared } = records
    if (prepared === undefined || this.#isAway(prepared.keyId)) return
    if (active === undefined || this.#isDue(active.issued, prepared.issued)) {
      await this.#activate(prepared)
    }
  }

  /** Where there are two places for keys, a successor is kept ready in the other one all the time. */
  async #keepReady(): Promise<void> {
    const { active, prepared } = this.#context.records
    if (active === undefined || prepared !== undefined) return
    if (this.#keyManager.place?.(active.keyId)?.hasOther === true) await this.#prepare()
  }

  /** It was kept ready for so long that it would have to be replaced as soon as it signs. */
  #isStale({ keyId, issued }: IssuedRecord, now: number): boolean {
    return this.#keyManager.place?.(keyId)?.hasOther === true && shouldPrepare(issued, now)
  }

  /** It may be there, in a token that cannot be asked now. */
  #isAway(keyId: string): boolean {
    return this.#keyManager.place?.(keyId)?.isUp === false
  }

  /** Lets the prepared authority take over from one whose token has been away for too long. */
  async #promoted(active: IssuedRecord, now: number): Promise<boolean> {
    const { kind, records } = this.#context
    const { prepared } = records
    const place = this.#keyManager.place?.(active.keyId)
    if (prepared === undefined || place?.isGivenUp !== true || this.#isAway(prepared.keyId)) {
      return false
    }
    const { authorityId, issuedAtSeconds } = prepared.issued
    if (now - issuedAtSeconds < this.propagationSeconds(active.issued)) return false
    const told = { authorityId, keyId: prepared.keyId, instead: active.issued.authorityId }
    const { where } = place
    this.#log.error({ ...told, where }, `${kind.title} takes over: ${where} has been away too long`)
    await this.#activate(prepared)
    this.#context.tell('promoted', authorityId)
    return true
  }

  /** By time, and by whether everybody would recognise what it signs: for that there is time, but not for ever. */
  #isDue(active: IssuedAuthority, prepared: IssuedAuthority): boolean {
    const now = this.#time.now()
    const publishedSeconds = now - prepared.issuedAtSeconds
    const isTime = shouldActivate(active, now) || this.#context.kind.isOutdated(active)
    if (!isTime || publishedSeconds < this.propagationSeconds(active)) return false
    const { lacking } = this.#holders.survey(this.publishedIn(prepared))
    if (lacking.length === 0) return true
    const { title } = this.#context.kind
    const { authorityId } = prepared
    const late = { authorityId, nodes: lacking.slice(0, 20), count: lacking.length }
    if (now < activateAtLatestSeconds(active)) {
      if (this.#lateFor !== authorityId) {
        this.#log.warn(late, `${title} waits to be activated for nodes that do not have it yet`)
      }
      this.#lateFor = authorityId
      return false
    }
    this.#log.error(late, `${title} is activated although nodes do not have it yet: it is time`)
    return true
  }

  /** What has been replaced signs no more, and an HSM has little room: two keys of a kind are enough. */
  async #destroyOldKeys(): Promise<void> {
    for (const { keyId, issued } of this.#context.records.old) {
      if (this.#keyManager.key(keyId) === undefined || this.#isAway(keyId)) continue
      await this.#keyManager.destroyKey(keyId)
      const { authorityId } = issued
      this.#log.info(
        { authorityId, keyId },
        `the key of an old ${this.#context.kind.title} is destroyed`,
      )
    }
  }

  async #activate(prepared: IssuedRecord): Promise<void> {
    const { kind, records } = this.#context
    await records.update((record) => {
      if (record.keyId === prepared.keyId) return { ...prepared, state: 'active' }
      return record.state === 'active' ? { ...record, state: 'old' } : record
    })
    this.#use(prepared)
    const { keyId, slot, issued } = prepared
    this.#log.info({ authorityId: issued.authorityId, keyId, slot }, `${kind.title} is active`)
    this.#context.tell('activated', issued.authorityId)
  }

  #use({ keyId, issued }: IssuedRecord): void {
    const key = this.#keyManager.key(keyId)
    if (key !== undefined && this.#active?.key === key) return
    if (key === undefined) {
      throw new AssayError('unavailable', `cannot sign with ${keyId}: the key manager lost it`)
    }
    this.#active = { issued, key }
  }

  /** Takes out of the bundle what expired a day ago, whichever server made it. */
  async #prune(): Promise<void> {
    const { kind, bundle } = this.#context
    const before = this.#time.now() - keepExpiredSeconds
    const isGone = ({ expiresAtSeconds }: PublishedAuthority): boolean =>
      expiresAtSeconds !== 0 && expiresAtSeconds < before
    const authorities = kind.published(bundle.present)
    if (!authorities.some(isGone)) return
    if (authorities.every(isGone)) {
      throw new AssayError(
        'failed-precondition',
        `cannot prune the bundle: no ${kind.title} would be left`,
      )
    }
    await bundle.update((present) => kind.without(present, isGone))
  }

  #newKeyId(slot: Slot, nowSeconds: number): string {
    const taken = new Set(this.#context.records.all.map(({ keyId }) => keyId))
    for (let seconds = nowSeconds; ; seconds++) {
      const keyId = `${this.#context.kind.keyPrefix}/${slot}/${compactTime(seconds)}`
      if (!taken.has(keyId) && this.#keyManager.key(keyId) === undefined) return keyId
    }
  }

  /** A key manager that is down may not know its keys: nothing may be concluded from what it lacks. */
  #checkKeyManager(): void {
    const { state, detail, where } = this.#keyManager.status()
    if (state === 'ok' || state === 'degraded') return
    throw new AssayError('unavailable', `cannot use the keys in ${where}: ${state}: ${detail}`, {
      reason: 'key-manager-down',
    })
  }
}

/** `20260102T030405Z` */
function compactTime(epochSeconds: number): string {
  return Temporal.Instant.fromEpochMilliseconds(epochSeconds * 1000)
    .toString({ smallestUnit: 'second' })
    .replace(/[-:]/g, '')
}
