import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { runTasks } from '#base/tasks.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { Selector } from '#spiffe/selector.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { type AgentEntry, isSameRevision } from './agent-entry.ts'
import { BundleSet, x509Trust } from './bundle-set.ts'
import { Deliveries, type Delivery, type Reader, type Verifies } from './deliveries.ts'
import { type Entitlement, Entitlements } from './entitlements.ts'
import { authorityUses, type Holdings } from './holdings.ts'
import { type JwtSvid, JwtSvidCache } from './jwt-svid-cache.ts'
import { PqIdentities } from './pq-identities.ts'
import { ProgramSelectors } from './program-selectors.ts'
import { ReplacementSpread } from './replacement-spread.ts'
import type { ServedIdentities } from './served-identities.ts'
import type { Update } from './update.ts'
import type { AuthorityTrust, X509Signer, X509Svid } from './x509-svid.ts'
import { X509SvidCache } from './x509-svid-cache.ts'
import { type X509View, x509View } from './x509-view.ts'

type IssueJwtSvid = (
  request: { readonly entryId: string; readonly audience: readonly string[] },
  signal: AbortSignal,
) => Promise<JwtSvid>

/** What the server does for identities. */
export interface Issuer {
  readonly x509Signer: X509Signer
  readonly issueJwtSvid: IssueJwtSvid
  /** The same for ML-DSA keys, signed by ML-DSA alone. */
  readonly pqX509Signer: X509Signer
  readonly issuePqJwtSvid: IssueJwtSvid
  /** The own trust domain's bundle as it is now, with its post-quantum part. */
  fetchBundle(signal: AbortSignal): Promise<Bundle>
}

export interface IdentitiesOptions {
  readonly issuer: Issuer
  /** Called when the own bundle has changed. */
  readonly onOwnBundle: (bundle: Bundle) => void
  /** Called when {@link Identities.holdings} may have changed. */
  readonly onHoldings: () => void
  readonly x509SvidCacheMaxSize: number
  readonly jwtSvidCacheMaxSize: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** Everything the agent serves: the entries, the bundles and the SVIDs, kept as the server last told. */
export class Identities implements ServedIdentities {
  /** Those that are post-quantum. */
  readonly pq: PqIdentities
  readonly #issuer: Issuer
  readonly #onOwnBundle: (bundle: Bundle) => void
  readonly #onHoldings: () => void
  readonly #clock: Clock
  readonly #deliveries: Deliveries
  readonly #spread: ReplacementSpread
  readonly #bundles = new BundleSet()
  readonly #entitlements = new Entitlements()
  readonly #x509: X509SvidCache
  readonly #jwt: JwtSvidCache
  readonly #programSelectors = new ProgramSelectors()
  #isSynchronized = false
  #revision = 0n

  constructor({ issuer, clock, random, log, ...options }: IdentitiesOptions) {
    this.#issuer = issuer
    this.#onOwnBundle = options.onOwnBundle
    this.#onHoldings = options.onHoldings
    this.#clock = clock
    this.#deliveries = new Deliveries({ onChanged: options.onHoldings, clock, log })
    this.#spread = new ReplacementSpread({ clock, random })
    const newX509Cache = (signer: X509Signer): X509SvidCache =>
      new X509SvidCache({
        signer,
        trustOf: (id) => this.#bundles.trustOf(id),
        refreshBundle: (signal) => this.#refreshBundle(signal),
        untilKnown: (ids, signal) => this.#untilX509Known(ids, signal),
        replaceAtMs: (id) => this.replaceAtMs(this.#bundles.classicalIdOf(id)),
        onChanged: (ids) => {
          this.#entitlements.touchEntries(ids)
          this.#holdingsChanged()
        },
        isInUse: (id) => this.#entitlements.isInUse(id),
        maxSize: options.x509SvidCacheMaxSize,
        clock,
        random,
        log,
      })
    const newJwtCache = (issue: IssueJwtSvid): JwtSvidCache =>
      new JwtSvidCache({
        issue: (request, signal) => this.#issueJwtSvid(issue, request, signal),
        trustOf: (keyId) => this.#bundles.trustOfKey(keyId),
        maxSize: options.jwtSvidCacheMaxSize,
        clock,
        random,
        log,
      })
    this.#x509 = newX509Cache(issuer.x509Signer)
    this.#jwt = newJwtCache((request, signal) => issuer.issueJwtSvid(request, signal))
    this.pq = new PqIdentities(this, {
      x509: newX509Cache(issuer.pqX509Signer),
      jwt: newJwtCache((request, signal) => issuer.issuePqJwtSvid(request, signal)),
    })
  }

  /** Whether the server has ever told the whole state. */
  get isSynchronized(): boolean {
    return this.#isSynchronized
  }

  /** The server's, of the last update. */
  get revision(): bigint {
    return this.#revision
  }

  get bundles(): BundleSet {
    return this.#bundles
  }

  get ownBundle(): Bundle | undefined {
    return this.#bundles.own
  }

  entriesOf({ entries }: Entitlement): readonly AgentEntry[] {
    return entries
  }

  get entries(): Iterable<AgentEntry> {
    return this.#entitlements.entries
  }

  /** Whether an entry asks what program a process runs. */
  get usesProgram(): boolean {
    return this.#programSelectors.areUsed
  }

  get counts(): {
    readonly entries: number
    readonly x509Svids: number
    readonly jwtSvids: number
  } {
    return {
      entries: this.#entitlements.size,
      x509Svids: this.#x509.size + this.pq.size,
      jwtSvids: this.#jwt.size,
    }
  }

  /** When the first X.509-SVID that is held expires, Unix time; undefined: none is held. */
  get firstExpiryMs(): number | undefined {
    return this.#x509.firstExpiryMs
  }

  /** A stream of the Workload API is open, until what it returns is disposed of. */
  deliver(verifies: Verifies, reader: Reader | undefined): Delivery {
    return this.#deliveries.open(verifies, reader)
  }

  /** When what a tainted authority signed is to be replaced. Unix time. */
  replaceAtMs(authorityId: string): number {
    return this.#spread.momentMs(authorityId)
  }

  /** What the agent, whose own SVID is `own`, and its workloads have. */
  holdings(own: Pick<X509Svid, 'authorityId' | 'expiresAtMs'> | undefined): Holdings {
    const { sequenceNumber, svids, lapsesAtMs } = this.#deliveries.survey()
    const held = this.#bundles.own?.sequenceNumber ?? 0n
    const all = [
      ...this.#x509.svids(),
      ...this.pq.svids(),
      ...svids,
      ...(own === undefined ? [] : [own]),
    ]
    return {
      bundleSequenceNumber:
        sequenceNumber !== undefined && sequenceNumber < held ? sequenceNumber : held,
      authorities: authorityUses(all, {
        nowMs: this.#clock.now().epochMilliseconds,
        // The server counts by the authorities that rotate, and a post-quantum one goes with its classical one.
        nameOf: (id) => this.#bundles.classicalIdOf(id),
      }),
      firstExpiryMs: this.firstExpiryMs,
      againAtMs: lapsesAtMs,
    }
  }

  /** What share of the held entries a complete update would take away, 0 to 1. */
  lossOf(update: Update): number {
    const held = this.#entitlements.size
    if (!update.complete || held === 0) return 0
    const kept = update.entries.filter((e) => this.#entitlements.entry(e.id) !== undefined).length
    return (held - kept) / held
  }

  /** Takes an update over as a whole: a workload sees all of it or nothing. */
  apply(update: Update): void {
    this.#spread.seconds = update.replacementSpreadSeconds
    const ownChanged = update.bundle !== undefined && this.#setOwn(update.bundle, update)
    const federatedChanged = this.#applyFederated(update)
    const changed = update.entries.filter((entry) => {
      const held = this.#entitlements.entry(entry.id)
      return held === undefined || !isSameRevision(held, entry)
    })
    const removedIds = new Set(update.removedEntryIds)
    if (update.complete) {
      const named = new Set(update.entries.map((entry) => entry.id))
      for (const { id } of this.#entitlements.entries) if (!named.has(id)) removedIds.add(id)
    }
    for (const id of removedIds) {
      this.#x509.deleteEntry(id)
      this.pq.deleteEntry(id)
      this.#programSelectors.delete(id)
    }
    for (const entry of changed) {
      this.#programSelectors.set(entry)
      if (!entry.storeSvid) this.#x509.setEntry(entry)
      this.pq.setEntry(entry)
    }
    if (ownChanged) this.#authoritiesChanged()
    if (ownChanged || removedIds.size > 0) this.#pruneTokens(removedIds)

    const wasSynchronized = this.#isSynchronized
    this.#isSynchronized ||= update.complete && this.#bundles.own !== undefined
    if (update.revision !== 0n) this.#revision = update.revision

    this.#entitlements.applyEntries({ changed, removedIds })
    if (ownChanged || wasSynchronized !== this.#isSynchronized) this.#entitlements.touchAll()
    else if (federatedChanged.size > 0) this.#entitlements.touchFederated(federatedChanged)
    this.#holdingsChanged()
  }

  /** Forgets everything: no identity is given out from now on. */
  clear(): void {
    this.#isSynchronized = false
    this.#x509.clear()
    this.#jwt.clear()
    this.pq.clear()
    this.#bundles.clear()
    const removedIds = [...this.#entitlements.entries].map((entry) => entry.id)
    for (const id of removedIds) this.#programSelectors.delete(id)
    this.#entitlements.applyEntries({ changed: [], removedIds })
    this.#entitlements.touchAll()
    this.#holdingsChanged()
  }

  /** What the holder of `selectors` (sorted, without repetition) is entitled to, now and as it changes. */
  entitlementOf(selectors: readonly Selector[]): Entitlement {
    return this.#entitlements.of(selectors)
  }

  /** Marks the X.509-SVIDs of an entitlement as used now, and has those that are missing signed. */
  want(entitlement: Entitlement): void {
    for (const { id } of entitlement.entries) this.#x509.want(id)
  }

  /** {@link want}, and waits until nothing is pending. */
  async settled(entitlement: Entitlement, signal: AbortSignal): Promise<void> {
    this.want(entitlement)
    const ids = entitlement.entries.map((entry) => entry.id)
    await this.#x509.settled(ids, signal)
  }

  x509View(entitlement: Entitlement): X509View {
    return x509View(entitlement.entries, {
      own: this.#bundles.own,
      stateOf: (id) => this.#x509.stateOf(id),
      federatedOf: (entries) => this.federatedOf(entries),
    })
  }

  /** When the X.509-SVID of an entry expires, Unix time in seconds; zero: none is held. */
  x509SvidExpiryOf(entryId: string): number {
    const held = this.#x509.stateOf(entryId)
    return held.state === 'held' ? Math.trunc(held.svid.expiresAtMs / 1000) : 0
  }

  /** The federated bundles that `entries` ask for and the agent has, by trust domain. */
  federatedOf(entries: readonly AgentEntry[]): readonly Bundle[] {
    const names = new Set(entries.flatMap((entry) => entry.federatesWith))
    return [...names].sort().flatMap((name) => this.#bundles.federated.get(name) ?? [])
  }

  /** A JWT-SVID of `entry`. @throws AssayError `unavailable` when there is none to be had. */
  async jwtSvid(
    entry: AgentEntry,
    audience: readonly string[],
    signal: AbortSignal,
  ): Promise<JwtSvid> {
    try {
      return await this.#jwt.get(entry, audience, signal)
    } catch (cause) {
      signal.throwIfAborted()
      throw noJwtSvid(entry, cause)
    }
  }

  /** The server is back: what waits for another attempt is tried at once. */
  retryNow(): void {
    this.#x509.retryNow()
    this.pq.retryNow()
  }

  run(signal: AbortSignal): Promise<void> {
    return runTasks(signal, [(s) => this.#x509.run(s), (s) => this.pq.run(s)])
  }

  /**
   * @param update complete: it is the whole state, whatever was held. Otherwise it may have been overtaken on the way by a
   *   bundle that was asked for, and an authority that is known must not become unknown again.
   * @returns whether the bundle differs from what was held.
   */
  #setOwn(bundle: Bundle, update: Pick<Update, 'complete'>): boolean {
    const { own } = this.#bundles
    const isOlder = own !== undefined && bundle.sequenceNumber < own.sequenceNumber
    if (isOlder && !update.complete) return false
    if (!this.#bundles.setOwn(bundle)) return false
    this.#onOwnBundle(bundle)
    return true
  }

  #authoritiesChanged(): void {
    this.#spread.keepOnly((id) => this.#bundles.trustOf(id) === 'tainted')
    this.#x509.authoritiesChanged()
    if (this.#bundles.own !== undefined) this.pq.authoritiesChanged(this.#bundles.own)
  }

  #holdingsChanged(): void {
    this.#deliveries.advance()
    this.#onHoldings()
  }

  #applyFederated(update: Update): ReadonlySet<TrustDomain> {
    const changed = new Set<TrustDomain>()
    const removed = new Set(update.removedFederated)
    if (update.complete) {
      const named = new Set(update.federatedBundles.map((bundle) => bundle.trustDomain))
      for (const name of this.#bundles.federated.keys()) if (!named.has(name)) removed.add(name)
    }
    for (const name of removed) if (this.#bundles.deleteFederated(name)) changed.add(name)
    for (const bundle of update.federatedBundles) {
      if (this.#bundles.setFederated(bundle)) changed.add(bundle.trustDomain)
    }
    return changed
  }

  /** Tokens live on in no cache once their key is tainted or revoked, or their entry gone. */
  #pruneTokens(removedIds: ReadonlySet<string>): void {
    this.#jwt.prune((entryId) => removedIds.has(entryId))
    this.pq.pruneTokens((entryId) => removedIds.has(entryId))
  }

  async #untilX509Known(authorityIds: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const knows = (bundle: Bundle): boolean => {
      const trust = x509Trust(bundle)
      return authorityIds.values().every((id) => trust.has(id))
    }
    await this.#deliveries.untilKnown({ verifies: 'x509', knows }, signal)
  }

  /** No token is given out before verifiers know its key, and none of a key that was tainted on its way here. */
  async #issueJwtSvid(
    issue: IssueJwtSvid,
    request: { readonly entryId: string; readonly audience: readonly string[] },
    signal: AbortSignal,
  ): Promise<JwtSvid> {
    const trustOf = (keyId: string): AuthorityTrust => this.#bundles.trustOfKey(keyId)
    for (let attempt = 1; ; attempt += 1) {
      const svid = await issue(request, signal)
      if (trustOf(svid.keyId) === 'unknown') await this.#refreshBundle(signal)
      if (trustOf(svid.keyId) !== 'unknown') await this.#untilKeyKnown(svid.keyId, signal)
      const trust = trustOf(svid.keyId)
      if (trust === 'trusted' || (trust === 'tainted' && attempt === 2)) return svid
      if (attempt === 2) {
        throw new AssayError(
          'unavailable',
          "cannot use the JWT-SVID: its key is not in the trust domain's bundle",
        )
      }
    }
  }

  async #untilKeyKnown(keyId: string, signal: AbortSignal): Promise<void> {
    const knows = (bundle: Bundle): boolean =>
      bundle.jwtAuthorities.some((a) => a.keyId === keyId || a.pq?.keyId === keyId)
    await this.#deliveries.untilKnown({ verifies: 'jwt', knows }, signal)
  }

  async #refreshBundle(signal: AbortSignal): Promise<void> {
    const bundle = await this.#issuer.fetchBundle(signal)
    if (!this.#setOwn(bundle, { complete: false })) return
    this.#authoritiesChanged()
    this.#pruneTokens(new Set())
    this.#entitlements.touchAll()
    this.#holdingsChanged()
  }
}

function noJwtSvid(entry: AgentEntry, cause: unknown): AssayError {
  return new AssayError('unavailable', `cannot fetch a JWT-SVID for ${entry.spiffeId}`, {
    reason: 'jwt-svid-unavailable',
    cause,
  })
}
