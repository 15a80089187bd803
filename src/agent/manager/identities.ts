import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { Selector } from '#spiffe/selector.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { type AgentEntry, isSameRevision } from './agent-entry.ts'
import { BundleSet, x509Trust } from './bundle-set.ts'
import { Deliveries, type Delivery, type Reader, type Verifies } from './deliveries.ts'
import { type Entitlement, Entitlements } from './entitlements.ts'
import { withUniqueHints } from './hints.ts'
import { authorityUses, type Holdings } from './holdings.ts'
import { type JwtSvid, JwtSvidCache } from './jwt-svid-cache.ts'
import { ProgramSelectors } from './program-selectors.ts'
import { ReplacementSpread } from './replacement-spread.ts'
import type { Update } from './update.ts'
import type { AuthorityTrust, X509Signer, X509Svid } from './x509-svid.ts'
import { X509SvidCache } from './x509-svid-cache.ts'

/** What the server does for identities. */
export interface Issuer {
  readonly x509Signer: X509Signer
  issueJwtSvid(
    request: { readonly entryId: string; readonly audience: readonly string[] },
    signal: AbortSignal,
  ): Promise<JwtSvid>
  /** The own trust domain's bundle as it is now. */
  fetchBundle(signal: AbortSignal): Promise<Bundle>
}

/** An identity as it is given to a workload. */
export interface HeldIdentity {
  readonly entry: AgentEntry
  readonly svid: X509Svid
}

/** What there is to give to the holder of an entitlement. */
export type X509View =
  /** No entry matches. */
  | { readonly state: 'none' }
  /** Nothing can be given yet, but soon. */
  | { readonly state: 'pending' }
  /** Nothing can be given, and who knows when. */
  | { readonly state: 'unavailable'; readonly error: AssayError }
  | {
      readonly state: 'ready'
      /** In the order of entry ids; at least one, none expired, each of an authority in `bundle`. */
      readonly identities: readonly HeldIdentity[]
      readonly bundle: Bundle
      readonly federated: readonly Bundle[]
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
export class Identities {
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
    this.#x509 = new X509SvidCache({
      signer: issuer.x509Signer,
      trustOf: (id) => this.#bundles.trustOf(id),
      refreshBundle: (signal) => this.#refreshBundle(signal),
      untilKnown: (ids, signal) => this.#untilX509Known(ids, signal),
      replaceAtMs: (id) => this.replaceAtMs(id),
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
    this.#jwt = new JwtSvidCache({
      issue: (request, signal) => this.#issueJwtSvid(request, signal),
      trustOf: (keyId) => this.#bundles.trustOfKey(keyId),
      maxSize: options.jwtSvidCacheMaxSize,
      clock,
      random,
      log,
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
      x509Svids: this.#x509.size,
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
    const all = [...this.#x509.svids(), ...svids, ...(own === undefined ? [] : [own])]
    return {
      bundleSequenceNumber:
        sequenceNumber !== undefined && sequenceNumber < held ? sequenceNumber : held,
      authorities: authorityUses(all, this.#clock.now().epochMilliseconds),
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
      this.#programSelectors.delete(id)
    }
    for (const entry of changed) {
      this.#programSelectors.set(entry)
      if (!entry.storeSvid) this.#x509.setEntry(entry)
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
    const { own } = this.#bundles
    if (entitlement.entries.length === 0) return { state: 'none' }
    if (own === undefined) return { state: 'pending' }
    const identities: HeldIdentity[] = []
    let error: AssayError | undefined
    for (const entry of withUniqueHints(entitlement.entries)) {
      const held = this.#x509.stateOf(entry.id)
      if (held.state === 'held') identities.push({ entry, svid: held.svid })
      // A workload does not lose an identity for the moment in which it is signed anew.
      else if (held.state === 'pending' && held.isReplacement) return { state: 'pending' }
      else if (held.state === 'refused' || held.state === 'unavailable') error ??= held.error
    }
    if (identities.length > 0) {
      return {
        state: 'ready',
        identities,
        bundle: own,
        federated: this.federatedOf(identities.map(({ entry }) => entry)),
      }
    }
    return error === undefined ? { state: 'pending' } : { state: 'unavailable', error }
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
  }

  run(signal: AbortSignal): Promise<void> {
    return this.#x509.run(signal)
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
    request: { readonly entryId: string; readonly audience: readonly string[] },
    signal: AbortSignal,
  ): Promise<JwtSvid> {
    const trustOf = (keyId: string): AuthorityTrust => this.#bundles.trustOfKey(keyId)
    for (let attempt = 1; ; attempt += 1) {
      const svid = await this.#issuer.issueJwtSvid(request, signal)
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
    const knows = (bundle: Bundle): boolean => bundle.jwtAuthorities.some((a) => a.keyId === keyId)
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
