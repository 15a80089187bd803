import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { NameAttribute } from '#pki/name.ts'
import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { IssueTime } from '../ca/issue-time.ts'
import { Issuer, type SvidDefaults } from '../ca/issuer.ts'
import type { Datastore } from '../datastore/datastore.ts'
import type { KeyManager, KeyType } from '../plugin/key-manager/key-manager.ts'
import type { UpstreamAuthority } from '../plugin/upstream-authority/upstream-authority.ts'
import type { AuthorityContext, AuthorityEvent } from './authority-context.ts'
import type { AuthorityKind } from './authority-kind.ts'
import { AuthorityRecords } from './authority-records.ts'
import { AuthoritySigners } from './authority-signers.ts'
import { type AuthorityState, authorityStates } from './authority-state.ts'
import { GuidedRotation, type RotationProgress, type RotationWishes } from './guided-rotation.ts'
import type { Holders } from './holders.ts'
import type { AuthorityKindName, AuthorityRecord, RotationRecord } from './journal.ts'
import { JournalStore } from './journal-store.ts'
import { newJwtKind } from './jwt-kind.ts'
import { OwnBundle } from './own-bundle.ts'
import { AuthorityRotator } from './rotator.ts'
import { SignedUntil } from './signed-until.ts'
import { revokeAuthority, taintAuthority } from './taint.ts'
import { Ticker } from './ticker.ts'
import { Upstream } from './upstream.ts'
import { revokeUpstream, taintUpstream } from './upstream-taint.ts'
import { hybridAuthorities, newX509Kind, withX509Authority } from './x509-kind.ts'

export interface AuthorityManagerOptions {
  readonly datastore: Pick<
    Datastore,
    'journal' | 'putJournal' | 'bundle' | 'updateBundle' | 'watch'
  >
  readonly keyManager: KeyManager
  /** What nodes have of the bundle and of what the authorities signed. */
  readonly holders: Holders
  /** Certifies the X.509 authorities; undefined: they are self-signed. */
  readonly upstreamAuthority?: UpstreamAuthority | undefined
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly trustDomain: TrustDomain
  /** Names this server's journal. It stays the same over restarts and no other server has it. */
  readonly serverName: string
  /** Lifetime of X.509 and JWT authorities. */
  readonly caTtlSeconds: number
  readonly caKeyType: KeyType
  readonly jwtKeyType: KeyType
  /** Of the post-quantum keys that the key manager makes beside those of authorities; undefined: none. */
  readonly pqParameterSet: MlDsaParameterSet | undefined
  /** Subject of X.509 authorities: see {@link issueRootCertificate}. */
  readonly caSubject: readonly NameAttribute[]
  /** How long a successor is in the bundle at least before it signs; see {@link propagationSeconds}. */
  readonly propagationDelaySeconds: number
  /** For the own bundle, when it has to be made. */
  readonly refreshHintSeconds: number
  readonly svidDefaults: SvidDefaults
  /** Told of every event, those of the first round included. Must not throw. */
  readonly onEvent?: (event: AuthorityEvent) => void
}

/** Whether rotation works, in words. */
export interface RotationHealth {
  readonly healthy: boolean
  /** False: nothing can be issued now. It may be true of a server that is not healthy. */
  readonly canIssue: boolean
  /** For people. Empty when healthy. */
  readonly detail: string
}

const tick = Temporal.Duration.from({ seconds: 10 })
const tolerableFailures = 10
const noteIssueTimeEverySeconds = 600
const noteSignedUntilEverySeconds = 60
/** However often nodes report, a rotation looks at them no more often than this. */
const lookEvery = Temporal.Duration.from({ milliseconds: 50 })
const lookAtLeastEvery = Temporal.Duration.from({ milliseconds: 500 })
const ourKey = /^(x509-ca|jwt)\//

/**
 * The X.509 and JWT authorities of this server: makes them, publishes them in the bundle, lets them sign, and
 * puts them away, by the time of day and by hand. Trouble with any of this never stops the active ones.
 */
export class AuthorityManager implements Disposable {
  /** Signs with whatever is active at the time of the call. */
  readonly certificateAuthority: Issuer
  readonly #options: AuthorityManagerOptions
  readonly #journal: JournalStore
  readonly #bundle: OwnBundle
  readonly #time: IssueTime
  readonly #upstream: Upstream | undefined
  readonly #kinds: Readonly<
    Record<
      AuthorityKindName,
      {
        readonly context: AuthorityContext
        readonly rotator: AuthorityRotator
        readonly guided: GuidedRotation
      }
    >
  >
  readonly #signers: AuthoritySigners
  readonly #signedUntil = new SignedUntil()
  readonly #listeners = new Set<(event: AuthorityEvent) => void>()
  #lock: Promise<unknown> = Promise.resolve()
  readonly #ticker: Ticker
  readonly #toldOrphans = new Set<string>()
  #failedRounds = 0
  #lastFailure = ''

  private constructor(
    options: AuthorityManagerOptions,
    state: { readonly journal: JournalStore; readonly bundle: OwnBundle },
  ) {
    const { trustDomain, clock, random } = options
    this.#options = options
    if (options.onEvent !== undefined) this.#listeners.add(options.onEvent)
    this.#ticker = new Ticker(clock, tick)
    this.#journal = state.journal
    this.#bundle = state.bundle
    this.#time = new IssueTime(clock, state.journal.value.newestIssueSeconds)
    const ttlSeconds = options.caTtlSeconds
    this.#upstream = options.upstreamAuthority && new Upstream(options.upstreamAuthority, options)
    this.#kinds = {
      x509: this.#newRotator(
        newX509Kind({
          trustDomain,
          random,
          ttlSeconds,
          keyType: options.caKeyType,
          subject: options.caSubject,
          upstream: this.#upstream,
          pqParameterSet: options.pqParameterSet,
        }),
      ),
      jwt: this.#newRotator(
        newJwtKind({
          ttlSeconds,
          keyType: options.jwtKeyType,
          pqParameterSet: options.pqParameterSet,
        }),
      ),
    }
    this.#signers = new AuthoritySigners({
      kinds: this.#kinds,
      keyManager: options.keyManager,
      time: this.#time,
    })
    this.certificateAuthority = new Issuer({
      trustDomain,
      signers: this.#signers,
      random,
      time: this.#time,
      defaults: options.svidDefaults,
      ca: { ttlSeconds: options.caTtlSeconds, subject: options.caSubject },
      onSign: (keyId, untilSeconds) => this.#signedUntil.begin(keyId, untilSeconds),
    })
    this.#assumeSigned()
  }

  /**
   * Reads the journal and makes the first round. A key manager that is down, or a clock that went back, does
   * not stop a server from starting: it then issues nothing until {@link run} has found it in order.
   *
   * @throws AssayError `failed-precondition` when the journal cannot be read; whatever the datastore throws.
   */
  static async open(options: AuthorityManagerOptions): Promise<AuthorityManager> {
    const { datastore, trustDomain, refreshHintSeconds } = options
    const journal = await JournalStore.open(datastore, options.serverName)
    const bundle = await OwnBundle.open(datastore, { trustDomain, refreshHintSeconds })
    const manager = new AuthorityManager(options, { journal, bundle })
    await manager.round()
    manager.#tellOfOrphans()
    return manager
  }

  /** Makes a round every ten seconds, and at once when the key manager comes back. */
  async run(signal: AbortSignal): Promise<void> {
    using _status = this.#options.keyManager.onStatus(({ state }) => {
      if (state !== 'ok' && state !== 'degraded') return
      this.#tellOfOrphans()
      this.#ticker.wake()
    })
    while (!signal.aborted) {
      await this.#ticker.wait(signal)
      if (!signal.aborted) await this.round()
    }
  }

  /** Brings both kinds to where they should be now. Failures are logged and counted, never thrown. */
  async round(): Promise<void> {
    await this.#exclusively(async () => {
      const failures: unknown[] = []
      const attempt = async (work: () => Promise<void>): Promise<void> => {
        try {
          await work()
        } catch (error) {
          failures.push(error)
          this.#options.log.error({ error }, 'cannot rotate authorities, will try again')
        }
      }
      await attempt(() => this.#publishRoots())
      for (const { context, rotator } of Object.values(this.#kinds)) {
        const couldSign = rotator.active !== undefined
        await attempt(() => rotator.round())
        const { active } = rotator
        if (active !== undefined && !couldSign) context.tell('usable', active.issued.authorityId)
      }
      await attempt(() => this.#noteIssueTime())
      this.#failedRounds = failures.length === 0 ? 0 : this.#failedRounds + 1
      this.#lastFailure = failures.map(messageOf).join('; ')
    })
  }

  /** Not healthy: nothing can be issued for want of an authority or of a right clock, or ten rounds have failed. */
  health(): RotationHealth {
    const problem = this.#time.problem()
    if (problem !== undefined) return { healthy: false, canIssue: false, detail: problem }
    for (const { context, rotator } of Object.values(this.#kinds)) {
      if (rotator.active === undefined) {
        const why = this.#lastFailure || 'the server is initializing'
        const detail = `no ${context.kind.title} is active: ${why}`
        return { healthy: false, canIssue: false, detail }
      }
      const away = this.#signers.whyAway(rotator.active)
      if (away !== undefined) return { healthy: false, canIssue: false, detail: away }
    }
    if (this.#failedRounds <= tolerableFailures)
      return { healthy: true, canIssue: true, detail: '' }
    return {
      healthy: false,
      canIssue: true,
      detail: `${this.#failedRounds} rotation rounds have failed, the last one: ${this.#lastFailure}`,
    }
  }

  /** The authorities of a kind that are prepared, active or old, in the order in which they were begun. */
  states(kind: AuthorityKindName): readonly AuthorityState[] {
    const { context } = this.#kinds[kind]
    return authorityStates(context.records, { kind: context.kind, bundle: this.#bundle.present })
  }

  /** Makes a successor now and publishes it; see {@link AuthorityRotator.prepare}. */
  async prepare(kind: AuthorityKindName): Promise<AuthorityState> {
    await this.#exclusively(() => this.#kinds[kind].rotator.prepare())
    return this.#inState(kind, 'prepared')
  }

  /** Lets the prepared authority take over now; see {@link AuthorityRotator.activate}. */
  async activate(kind: AuthorityKindName, authorityId: string): Promise<AuthorityState> {
    await this.#exclusively(() => this.#kinds[kind].rotator.activate(authorityId))
    return this.#inState(kind, 'active')
  }

  /** Marks an old authority; see {@link taintAuthority}. */
  async taint(kind: AuthorityKindName, authorityId: string): Promise<void> {
    this.#checkOwn(kind, `taint ${authorityId}`, authorityId)
    await this.#exclusively(() => taintAuthority(this.#kinds[kind].context, authorityId))
  }

  /** Takes a tainted authority away and destroys its key; see {@link revokeAuthority}. */
  async revoke(kind: AuthorityKindName, authorityId: string): Promise<void> {
    this.#checkOwn(kind, `revoke ${authorityId}`, authorityId)
    await this.#exclusively(async () => {
      const { context, rotator } = this.#kinds[kind]
      await revokeAuthority(context, authorityId)
      await rotator.retire()
    })
  }

  /**
   * Rotates the authorities of a kind, or goes on with the rotation under way: tells each step after it is durable,
   * and, while it waits, what for, whenever that changes. It may be left at any time, and called by several at once.
   *
   * @throws AssayError `unavailable` while the key manager cannot be used; the signal's reason when it aborts.
   */
  async *rotate(
    kind: AuthorityKindName,
    wishes: RotationWishes,
    signal: AbortSignal,
  ): AsyncGenerator<RotationProgress> {
    const { clock, holders } = this.#options
    const news = new Ticker(clock, lookAtLeastEvery)
    using _change = holders.onChange(() => news.wake())
    const { guided } = this.#kinds[kind]
    let told = ''
    let joined = wishes
    for (;;) {
      signal.throwIfAborted()
      const progress = await this.#exclusively(() => guided.advance(joined))
      joined = { ...wishes, predecessorId: progress.predecessorId }
      const telling = JSON.stringify(progress)
      if (telling !== told) yield progress
      told = telling
      if (progress.step === 'done') return
      if (progress.step !== 'propagating' && progress.step !== 'replacing') continue
      await clock.sleep(lookEvery, signal)
      await news.wait(signal)
    }
  }

  /** An X.509-SVID was signed for an operator, or a CA for a downstream server. It is remembered for good before this returns. */
  async noteMinted(authorityId: string, untilSeconds: number): Promise<void> {
    const { records } = this.#kinds.x509.context
    await this.#exclusively(() => records.noteMinted(authorityId, untilSeconds))
  }

  /** Of the bundle that the server gives out now. */
  bundleSequenceNumber(): bigint {
    return this.#bundle.present.sequenceNumber
  }

  /** The rotations that were asked for and are not done. */
  rotations(): readonly { readonly kind: AuthorityKindName; readonly rotation: RotationRecord }[] {
    return (['x509', 'jwt'] as const).flatMap((kind) => {
      const rotation = this.#journal.value.rotations[kind]
      return rotation === undefined ? [] : [{ kind, rotation }]
    })
  }

  /** Marks the root above an old X.509 authority; see {@link taintUpstream}. */
  async taintUpstream(subjectKeyId: string): Promise<void> {
    const { context } = this.#kinds.x509
    await this.#exclusively(() =>
      taintUpstream(context, { subjectKeyId, isConfigured: this.#upstream !== undefined }),
    )
  }

  /** Takes a tainted root above old X.509 authorities away, and destroys their keys; see {@link revokeUpstream}. */
  async revokeUpstream(subjectKeyId: string): Promise<void> {
    const { context, rotator } = this.#kinds.x509
    await this.#exclusively(async () => {
      const upstream = await this.#upstream?.look()
      await revokeUpstream(context, {
        subjectKeyId,
        isConfigured: upstream !== undefined,
        roots: upstream?.roots ?? [],
      })
      await rotator.retire()
    })
  }

  /** What is the matter with the upstream authority, and when it ends; undefined: there is none. */
  upstream():
    | { readonly problem: string | undefined; readonly endSeconds: number | undefined }
    | undefined {
    const upstream = this.#upstream
    return upstream && { problem: upstream.problem(), endSeconds: upstream.endSeconds }
  }

  /** Whether the bundle has an X.509 authority with this subject key identifier that is tainted. */
  isTainted(subjectKeyId: Uint8Array): boolean {
    const authorityId = subjectKeyId.toHex()
    return this.#kinds.x509.context.kind
      .published(this.#bundle.present)
      .some((authority) => authority.tainted && authority.authorityId === authorityId)
  }

  /** The X.509 authorities in the bundle that sign both ways, by their ids. */
  hybridAuthorities(): ReadonlyMap<string, MlDsaParameterSet> {
    return hybridAuthorities(this.#bundle.present)
  }

  /** Calls back at each event until it is disposed of. `listener` must not throw. */
  onEvent(listener: (event: AuthorityEvent) => void): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /** Names of the keys of authorities that are being made, and of which kind they will be. They may not be there yet. */
  keysInPreparation(): ReadonlyMap<string, AuthorityKindName> {
    const kinds = ['x509', 'jwt'] as const
    return new Map(
      kinds.flatMap((kind) => {
        const { preparing } = this.#kinds[kind].context.records
        return preparing === undefined ? [] : [[preparing.keyId, kind] as const]
      }),
    )
  }

  /** Names of authority keys in the key manager that no authority of this server has; they may be another's. */
  orphanKeys(): readonly string[] {
    const { x509, jwt } = this.#journal.value
    const known = new Set([...x509, ...jwt].map(({ keyId }) => keyId))
    return this.#options.keyManager
      .keys()
      .map(({ id }) => id)
      .filter((id) => ourKey.test(id) && !known.has(id))
  }

  /** An operator says that the clock is right, although something was issued at a later time. */
  async acceptClock(): Promise<void> {
    await this.#exclusively(async () => {
      this.#time.accept()
      await this.#saveIssueTime()
    })
    await this.round()
  }

  [Symbol.dispose](): void {
    this.#bundle[Symbol.dispose]()
  }

  /** What was signed before the start was noted once a minute; what came after the note is no longer than usual. */
  #assumeSigned(): void {
    const { clock, svidDefaults } = this.#options
    const nowSeconds = Math.floor(clock.now().epochMilliseconds / 1000)
    const { x509SvidTtlSeconds, agentSvidTtlSeconds, jwtSvidTtlSeconds } = svidDefaults
    const longest = {
      x509: Math.max(x509SvidTtlSeconds, agentSvidTtlSeconds),
      jwt: jwtSvidTtlSeconds,
    }
    for (const kind of ['x509', 'jwt'] as const) {
      const { active } = this.#kinds[kind].context.records
      if (active === undefined) continue
      const untilSeconds = Math.min(nowSeconds + longest[kind], active.issued.expiresAtSeconds)
      this.#signedUntil.note(active.keyId, untilSeconds)
    }
  }

  /** Once for each, when the key manager first shows it. */
  #tellOfOrphans(): void {
    const keys = this.orphanKeys().filter((key) => !this.#toldOrphans.has(key))
    if (keys.length === 0) return
    for (const key of keys) this.#toldOrphans.add(key)
    this.#options.log.warn({ keys }, 'the key manager has authority keys no journal names')
  }

  #newRotator(kind: AuthorityKind) {
    const { keyManager, log, holders, clock, propagationDelaySeconds } = this.#options
    const context: AuthorityContext = {
      kind,
      records: new AuthorityRecords(this.#journal, {
        kind: kind.name,
        time: this.#time,
        signedUntil: this.#signedUntil,
      }),
      bundle: this.#bundle,
      tell: (what, authorityId) => {
        for (const listener of this.#listeners) listener({ kind: kind.name, what, authorityId })
      },
    }
    const rotator = new AuthorityRotator(context, {
      keyManager,
      time: this.#time,
      log,
      holders,
      propagationDelaySeconds,
    })
    const guided = new GuidedRotation(context, { rotator, holders, clock, log })
    return { context, rotator, guided }
  }

  /** Roots of the upstream authority are known everywhere before anything is signed below them. */
  async #publishRoots(): Promise<void> {
    // An upstream that is unwell says so itself, and what it has certified goes on.
    const { roots } = (await this.#upstream?.look().catch(() => undefined)) ?? { roots: [] }
    const publish = (bundle: Bundle): Bundle =>
      roots.reduce((so, { raw }) => withX509Authority(so, raw), bundle)
    const { present } = this.#bundle
    if (publish(present) !== present) await this.#bundle.update(publish)
  }

  /** @throws AssayError `failed-precondition` when the bundle has the root of another CA for that authority. */
  #checkOwn(kind: AuthorityKindName, action: string, authorityId: string): void {
    if (kind !== 'x509') return
    const state = this.states(kind).find((one) => one.authorityId === authorityId)
    const isOwn = state === undefined ? this.#upstream === undefined : state.upstream === undefined
    if (isOwn) return
    throw new AssayError(
      'failed-precondition',
      `cannot ${action}: the bundle has the upstream authority's root for it; taint and revoke that`,
      { reason: 'upstream-authority' },
    )
  }

  #inState(kind: AuthorityKindName, state: AuthorityState['state']): AuthorityState {
    const found = this.states(kind).find((candidate) => candidate.state === state)
    if (found === undefined) throw new AssayError('internal', `no ${kind} authority is ${state}`)
    return found
  }

  async #noteIssueTime(): Promise<void> {
    const noted = this.#journal.value.newestIssueSeconds
    if (this.#time.newestSeconds >= noted + noteIssueTimeEverySeconds) await this.#saveIssueTime()
    for (const { context } of Object.values(this.#kinds)) {
      const { records } = context
      const isBehind = (record: AuthorityRecord): boolean =>
        records.signedUntilSeconds(record) >=
        record.signedUntilSeconds + noteSignedUntilEverySeconds
      if (records.all.some(isBehind)) await records.update((record) => record)
    }
  }

  async #saveIssueTime(): Promise<void> {
    await this.#journal.save({
      ...this.#journal.value,
      newestIssueSeconds: this.#time.newestSeconds,
    })
  }

  /** One change at a time, in the order they came. */
  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#lock.then(work)
    this.#lock = done.catch(() => {})
    return done
  }
}
