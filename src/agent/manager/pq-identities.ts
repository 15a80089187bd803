import { AssayError } from '#base/errors.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { pqBundle } from '#spiffe/pq-bundle.ts'
import { isPqHint } from '#spiffe/pq-hint.ts'
import type { Selector } from '#spiffe/selector.ts'
import type { AgentEntry } from './agent-entry.ts'
import type { Delivery, Reader, Verifies } from './deliveries.ts'
import type { Entitlement } from './entitlements.ts'
import type { JwtSvid, JwtSvidCache } from './jwt-svid-cache.ts'
import type { ServedIdentities } from './served-identities.ts'
import type { X509Svid } from './x509-svid.ts'
import type { X509SvidCache } from './x509-svid-cache.ts'
import { type X509View, x509View } from './x509-view.ts'

/**
 * The post-quantum identities of entries that ask for them: kept beside the classical ones, in caches of their own, while
 * the own bundle has a post-quantum authority.
 */
export class PqIdentities implements ServedIdentities {
  readonly #classical: ServedIdentities
  readonly #x509: X509SvidCache
  readonly #jwt: JwtSvidCache
  readonly #entries = new Map<string, AgentEntry>()
  #hasAuthority = false

  constructor(
    classical: ServedIdentities,
    caches: { readonly x509: X509SvidCache; readonly jwt: JwtSvidCache },
  ) {
    this.#classical = classical
    this.#x509 = caches.x509
    this.#jwt = caches.jwt
  }

  get isSynchronized(): boolean {
    return this.#classical.isSynchronized
  }

  get ownBundle(): Bundle | undefined {
    return this.#classical.ownBundle
  }

  /** How many X.509-SVIDs are held. */
  get size(): number {
    return this.#x509.size
  }

  /** Those that are held. */
  svids(): Iterable<X509Svid> {
    return this.#x509.svids()
  }

  /** A new entry, or a new revision of one: it may ask for post-quantum identities, or no longer. */
  setEntry(entry: AgentEntry): void {
    if (entry.storeSvid || !isPqHint(entry.hint)) {
      this.deleteEntry(entry.id)
      return
    }
    this.#entries.set(entry.id, entry)
    if (this.#hasAuthority) this.#x509.setEntry(entry)
  }

  deleteEntry(entryId: string): void {
    if (this.#entries.delete(entryId)) this.#x509.deleteEntry(entryId)
  }

  /** The own bundle has changed. */
  authoritiesChanged(own: Bundle): void {
    const hasAuthority = pqBundle(own).x509Authorities.length > 0
    if (hasAuthority !== this.#hasAuthority) {
      this.#hasAuthority = hasAuthority
      for (const entry of this.#entries.values()) {
        if (hasAuthority) this.#x509.setEntry(entry)
        else this.#x509.deleteEntry(entry.id)
      }
    }
    this.#x509.authoritiesChanged()
  }

  pruneTokens(isGone: (entryId: string) => boolean): void {
    this.#jwt.prune(isGone)
  }

  clear(): void {
    this.#entries.clear()
    this.#x509.clear()
    this.#jwt.clear()
    this.#hasAuthority = false
  }

  retryNow(): void {
    this.#x509.retryNow()
  }

  run(signal: AbortSignal): Promise<void> {
    return this.#x509.run(signal)
  }

  entitlementOf(selectors: readonly Selector[]): Entitlement {
    return this.#classical.entitlementOf(selectors)
  }

  entriesOf({ entries }: Entitlement): readonly AgentEntry[] {
    return entries.filter(({ hint }) => isPqHint(hint))
  }

  deliver(verifies: Verifies, reader: Reader | undefined): Delivery {
    return this.#classical.deliver(verifies, reader)
  }

  want(entitlement: Entitlement): void {
    for (const { id } of this.entriesOf(entitlement)) this.#x509.want(id)
  }

  async settled(entitlement: Entitlement, signal: AbortSignal): Promise<void> {
    this.want(entitlement)
    const ids = this.entriesOf(entitlement).map(({ id }) => id)
    await this.#x509.settled(ids, signal)
  }

  x509View(entitlement: Entitlement): X509View {
    const entries = this.entriesOf(entitlement)
    if (entries.length > 0 && this.ownBundle !== undefined && !this.#hasAuthority) {
      return { state: 'unavailable', error: noAuthority() }
    }
    return x509View(entries, {
      own: this.ownBundle,
      stateOf: (id) => this.#x509.stateOf(id),
      federatedOf: (of) => this.federatedOf(of),
    })
  }

  async jwtSvid(
    entry: AgentEntry,
    audience: readonly string[],
    signal: AbortSignal,
  ): Promise<JwtSvid> {
    if (!this.#hasAuthority) throw noAuthority()
    try {
      return await this.#jwt.get(entry, audience, signal)
    } catch (cause) {
      signal.throwIfAborted()
      throw new AssayError(
        'unavailable',
        `cannot fetch a post-quantum JWT-SVID for ${entry.spiffeId}`,
        { reason: 'jwt-svid-unavailable', cause },
      )
    }
  }

  /** None: what other trust domains have of this kind is not exchanged. */
  federatedOf(entries: readonly AgentEntry[]): readonly Bundle[] {
    return this.#classical
      .federatedOf(entries)
      .filter((bundle) => pqBundle(bundle).x509Authorities.length > 0)
  }
}

const noAuthority = (): AssayError =>
  new AssayError(
    'unavailable',
    'the trust domain has no post-quantum authority: pq_signatures: hybrid in server.yaml gives it one',
    { reason: 'no-pq-authority' },
  )
