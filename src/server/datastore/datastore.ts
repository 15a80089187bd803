import type { Bundle } from '#spiffe/bundle.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { Selector } from '#spiffe/selector.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'

/** A node that has attested. */
export interface AttestedNodeRecord {
  readonly agentId: SpiffeId
  /** The node attestor's type: `tpm`, `join_token`. */
  readonly attestationType: string
  /** Serial of the SVID in use, decimal. Empty: the node is banned. */
  readonly serialNumber: string
  /** Unix time at which the SVID in use expires. */
  readonly expiresAtSeconds: number
  /** Serial of a renewed SVID that has not been used yet, decimal; empty when there is none. */
  readonly newSerialNumber: string
  readonly newExpiresAtSeconds: number
  readonly canReattest: boolean
  /** Sorted, without repetition. */
  readonly selectors: readonly Selector[]
  /** As the agent reported it; empty when it has not. */
  readonly agentVersion: string
  /** Unix time of the last attestation or renewal. */
  readonly attestedAtSeconds: number
}

/** A one-time secret that lets one node attest as `/spire/agent/join_token/<value>`. */
export interface JoinToken {
  readonly value: string
  readonly expiresAtSeconds: number
}

/** What an operator has said about an endorsement key. `pending`: it has knocked and nobody has said anything. */
export type EnrolmentState = 'allowed' | 'pending' | 'denied' | 'banned'

/** A TPM as the inventory knows it, by its endorsement key. */
export interface InventoryRecord {
  /** Lower-case hex of SHA-256 over the endorsement key's SubjectPublicKeyInfo. */
  readonly endorsementKeyHash: string
  readonly state: EnrolmentState
  /** The operator's name for the node; may be empty. */
  readonly nodeName: string
  /** Where it was last seen; empty when never. */
  readonly lastAddress: string
  readonly firstSeenSeconds: number
  readonly lastSeenSeconds: number
  /** What the TPM says it is (maker, model, firmware), for people who approve; a claim, not a proof. */
  readonly description: string
  /** The clock of the last accepted quote; undefined before the first. */
  readonly clock: TpmClock | undefined
}

/** TPMS_CLOCK_INFO and firmware version of an accepted quote (TPM 2.0 Part 2 §10.11.1), to see rollback by. */
export interface TpmClock {
  readonly resetCount: number
  readonly restartCount: number
  /** Milliseconds. */
  readonly clock: bigint
  readonly firmwareVersion: bigint
}

/** One change, in the order in which changes were committed. `value` is undefined for a deletion. */
export type Change = { readonly revision: number } & (
  | { readonly kind: 'entry'; readonly key: string; readonly value: RegistrationEntry | undefined }
  | {
      readonly kind: 'node'
      readonly key: SpiffeId
      readonly value: AttestedNodeRecord | undefined
    }
  | { readonly kind: 'bundle'; readonly key: TrustDomain; readonly value: Bundle | undefined }
  | {
      readonly kind: 'inventory'
      readonly key: string
      readonly value: InventoryRecord | undefined
    }
)

/** How two sets are compared in a filter: the record's set against the filter's. */
export type SetMatch = 'exact' | 'subset' | 'superset' | 'any'

/** A page of a list: `pageToken` is empty for the first page, `pageSize` zero for everything. */
export interface Page {
  readonly pageSize: number
  readonly pageToken: string
}

/** `nextPageToken` is empty after the last page. Order is that of creation. */
export interface Listed<T> {
  readonly items: readonly T[]
  readonly nextPageToken: string
}

/** Absent fields do not filter. */
export interface EntryFilter {
  readonly spiffeId?: SpiffeId
  /** The SPIFFE ID is one of these or below one, by whole path segments. */
  readonly spiffeIdPrefixes?: readonly SpiffeId[]
  readonly parentId?: SpiffeId
  readonly selectors?: { readonly match: SetMatch; readonly selectors: readonly Selector[] }
  readonly federatesWith?: {
    readonly match: SetMatch
    readonly trustDomains: readonly TrustDomain[]
  }
  readonly hint?: string
  readonly downstream?: boolean
}

/** Absent fields do not filter. */
export interface NodeFilter {
  /** The agent ID is one of these or below one, by whole path segments. */
  readonly agentIdPrefixes?: readonly SpiffeId[]
  readonly attestationType?: string
  readonly selectors?: { readonly match: SetMatch; readonly selectors: readonly Selector[] }
  readonly banned?: boolean
  readonly canReattest?: boolean
  /** Only nodes whose SVID expires before this Unix time. */
  readonly expiresBeforeSeconds?: number
}

/** What happens to entries that federate with a bundle that is deleted. */
export type BundleDeletion = 'restrict' | 'delete' | 'dissociate'

/** A copy of everything of one moment, in a file that is removed when this is disposed of. */
export interface Snapshot extends AsyncDisposable {
  readonly path: string
  readonly bytes: number
  /** How many migrations it has seen. */
  readonly schemaVersion: number
  readonly revision: number
  /** Sequence numbers of the bundles in it. */
  readonly bundles: ReadonlyMap<TrustDomain, bigint>
}

export interface SnapshotOptions {
  readonly signal: AbortSignal
  /** Both count in the same unit. */
  readonly onProgress: (done: number, total: number) => void
}

/**
 * Everything the servers of a trust domain share and must not lose. A call that resolves is durable (an
 * `fsync` has happened); one that rejects has changed nothing. Every change of an entry, node, bundle or
 * inventory record is one revision, told to watchers after it is durable, in order and with its value, so that
 * readers in memory never query. Implementations pass `test/contract/datastore.ts`.
 */
export interface Datastore extends AsyncDisposable {
  /** The revision of the last change; zero before the first. */
  revision(): number
  /**
   * Tells `listener` of every change from now on; it must not throw. To load a cache: watch first, then list;
   * a change's value replaces what is held when its revision is newer.
   */
  watch(listener: (change: Change) => void): Disposable

  /**
   * Creates an entry unless one with the same parent, SPIFFE ID and selectors exists.
   *
   * @returns the entry made, or the similar one with `existing: true`.
   * @throws AssayError `already-exists` when the id is taken by another entry.
   * @throws AssayError `failed-precondition` when it federates with a trust domain that has no bundle.
   */
  createEntry(
    entry: RegistrationEntry,
  ): Promise<{ readonly entry: RegistrationEntry; readonly existing: boolean }>
  /**
   * Replaces the entry with this id by what `change` makes of it, and counts `revisionNumber` up.
   *
   * @throws AssayError `not-found`; what `change` throws.
   */
  updateEntry(
    id: string,
    change: (entry: RegistrationEntry) => RegistrationEntry,
  ): Promise<RegistrationEntry>
  /**
   * `check` sees the entry in the same transaction, and refuses by throwing.
   *
   * @throws AssayError `not-found`; what `check` throws.
   */
  deleteEntry(id: string, check?: (entry: RegistrationEntry) => void): Promise<RegistrationEntry>
  entry(id: string): Promise<RegistrationEntry | undefined>
  /** @throws AssayError `invalid-argument` for a page token that is not ours. */
  listEntries(filter: EntryFilter, page: Page): Promise<Listed<RegistrationEntry>>
  countEntries(filter: EntryFilter): Promise<number>
  /** Removes entries whose `expiresAtSeconds` is set and below `nowSeconds`. */
  pruneEntries(nowSeconds: number): Promise<readonly RegistrationEntry[]>

  /** Creates or replaces a node's record. */
  putNode(node: AttestedNodeRecord): Promise<void>
  /**
   * Replaces a node's record by what `change` makes of it, in one transaction.
   *
   * @throws AssayError `not-found`; what `change` throws.
   */
  updateNode(
    agentId: SpiffeId,
    change: (node: AttestedNodeRecord) => AttestedNodeRecord,
  ): Promise<AttestedNodeRecord>
  /**
   * {@link updateNode} for a node that may have no record yet (undefined). Who decides by what is there needs it: a
   * record that was read before may have been banned since.
   *
   * @throws what `change` throws.
   */
  writeNode(
    agentId: SpiffeId,
    change: (node: AttestedNodeRecord | undefined) => AttestedNodeRecord,
  ): Promise<AttestedNodeRecord>
  /** @throws AssayError `not-found`. */
  deleteNode(agentId: SpiffeId): Promise<AttestedNodeRecord>
  node(agentId: SpiffeId): Promise<AttestedNodeRecord | undefined>
  listNodes(filter: NodeFilter, page: Page): Promise<Listed<AttestedNodeRecord>>
  countNodes(filter: NodeFilter): Promise<number>

  /** @throws AssayError `already-exists`. */
  createJoinToken(token: JoinToken): Promise<void>
  /** Removes and returns a token, so that it can be used once; undefined when there is none. */
  takeJoinToken(value: string): Promise<JoinToken | undefined>
  /** Removes tokens that expired before `nowSeconds`. */
  pruneJoinTokens(nowSeconds: number): Promise<number>

  bundle(trustDomain: TrustDomain): Promise<Bundle | undefined>
  listBundles(page: Page): Promise<Listed<Bundle>>
  /**
   * Replaces a bundle by what `change` makes of the present one (undefined: there is none), in one transaction.
   * When the content differs, `sequenceNumber` is set to one more than the greater of the two; when it does not,
   * nothing is written. Only the own trust domain's and imported bundles live here.
   */
  updateBundle(
    trustDomain: TrustDomain,
    change: (bundle: Bundle | undefined) => Bundle,
  ): Promise<Bundle>
  /**
   * `check` sees each entry that goes or changes with it in the same transaction, and refuses by throwing.
   *
   * @throws AssayError `not-found`; `failed-precondition` with `restrict` when entries federate with it; what `check`
   *   throws.
   */
  deleteBundle(
    trustDomain: TrustDomain,
    mode: BundleDeletion,
    check?: (entry: RegistrationEntry) => void,
  ): Promise<void>

  inventoryRecord(endorsementKeyHash: string): Promise<InventoryRecord | undefined>
  /** Creates or replaces records, all or none. */
  putInventory(records: readonly InventoryRecord[]): Promise<void>
  /** @throws AssayError `not-found`. */
  updateInventory(
    endorsementKeyHash: string,
    change: (record: InventoryRecord) => InventoryRecord,
  ): Promise<InventoryRecord>
  /** {@link updateInventory} for a TPM that may have no record yet (undefined). @throws what `change` throws. */
  writeInventory(
    endorsementKeyHash: string,
    change: (record: InventoryRecord | undefined) => InventoryRecord,
  ): Promise<InventoryRecord>
  /**
   * Removes a record; where `state` is given, only while it is in that state.
   *
   * @returns undefined when there was none to remove.
   */
  deleteInventory(
    endorsementKeyHash: string,
    state?: EnrolmentState,
  ): Promise<InventoryRecord | undefined>
  listInventory(state: EnrolmentState | undefined, page: Page): Promise<Listed<InventoryRecord>>

  /** Copies everything but join tokens while others read and write. @throws AssayError; the signal's reason. */
  snapshot(options: SnapshotOptions): Promise<Snapshot>

  /**
   * The authority journal of one server: an opaque document, replaced as a whole. `server` is a stable name of
   * the server instance.
   */
  journal(server: string): Promise<string | undefined>
  putJournal(server: string, document: string): Promise<void>
}
