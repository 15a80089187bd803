import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { AssayError } from '#base/errors.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { Selector } from '#spiffe/selector.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { EntryFilter, Listed, Page } from '../../datastore.ts'
import { writtenColumns } from './columns.ts'
import { type Condition, ConditionBuilder } from './condition.ts'
import { Members } from './members.ts'
import { countRows, listPage } from './paging.ts'
import { takenError } from './sqlite-error.ts'
import type { Record } from './writer.ts'

const columns = `row, id, spiffe_id, parent_id, selectors, x509_svid_ttl_seconds, jwt_svid_ttl_seconds,
  federates_with, dns_names, admin, downstream, store_svid, hint, expires_at_seconds, revision_number,
  created_at_seconds, disable_x509_svid_prefetch, jwt_svid_include_jti`

type Row = readonly [
  row: number,
  id: string,
  spiffeId: SpiffeId,
  parentId: SpiffeId,
  selectors: string,
  x509SvidTtlSeconds: number,
  jwtSvidTtlSeconds: number,
  federatesWith: string,
  dnsNames: string,
  admin: number,
  downstream: number,
  storeSvid: number,
  hint: string,
  expiresAtSeconds: number,
  revisionNumber: number,
  createdAtSeconds: number,
  disableX509SvidPrefetch: number,
  jwtSvidIncludeJti: number,
]

/** Registration entries and what they federate with. Writes run inside a transaction of the `Writer`. */
export class EntryTable {
  readonly #database: DatabaseSync
  readonly #byId: StatementSync
  readonly #similar: StatementSync
  readonly #expired: StatementSync
  readonly #federating: StatementSync
  readonly #hasBundle: StatementSync
  readonly #insert: StatementSync
  readonly #update: StatementSync
  readonly #delete: StatementSync
  readonly #selectors: Members
  readonly #federation: Members

  constructor(database: DatabaseSync) {
    const select = `SELECT ${columns} FROM entries`
    const names = writtenColumns(columns)
    const places = names.map(() => '?').join(', ')
    this.#database = database
    this.#byId = database.prepare(`${select} WHERE id = ?`)
    this.#similar = database.prepare(
      `${select} WHERE parent_id = ? AND spiffe_id = ? AND selectors = ? ORDER BY row LIMIT 1`,
    )
    this.#expired = database.prepare(
      `${select} WHERE expires_at_seconds > 0 AND expires_at_seconds < ? ORDER BY row`,
    )
    this.#federating = database.prepare(
      `${select} WHERE row IN (SELECT owner FROM entry_federation WHERE member = ?) ORDER BY row`,
    )
    this.#hasBundle = database.prepare('SELECT 1 FROM bundles WHERE trust_domain = ?')
    this.#insert = database.prepare(`INSERT INTO entries (${names.join(', ')}) VALUES (${places})`)
    this.#update = database.prepare(
      `UPDATE entries SET ${names.map((name) => `${name} = ?`).join(', ')} WHERE row = ?`,
    )
    this.#delete = database.prepare('DELETE FROM entries WHERE row = ?')
    this.#selectors = new Members(database, 'entry_selectors')
    this.#federation = new Members(database, 'entry_federation')
  }

  get(id: string): RegistrationEntry | undefined {
    const row = this.#row(id)
    return row && decode(row)
  }

  list(filter: EntryFilter, page: Page): Promise<Listed<RegistrationEntry>> {
    return listPage<Row, RegistrationEntry>(
      this.#database,
      { table: 'entries', columns, condition: conditionOf(filter), decode },
      page,
    )
  }

  count(filter: EntryFilter): number {
    return countRows(this.#database, 'entries', conditionOf(filter))
  }

  create(
    entry: RegistrationEntry,
    record: Record,
  ): { readonly entry: RegistrationEntry; readonly existing: boolean } {
    const similar = this.#similar.get(
      entry.parentId,
      entry.spiffeId,
      JSON.stringify(entry.selectors),
    ) as unknown as Row | undefined
    if (similar !== undefined) return { entry: decode(similar), existing: true }
    this.#requireBundles(entry)
    try {
      const { lastInsertRowid } = this.#insert.run(...encode(entry))
      this.#selectors.insert(Number(lastInsertRowid), entry.selectors)
      this.#federation.insert(Number(lastInsertRowid), entry.federatesWith)
    } catch (error) {
      throw takenError(error, `cannot create entry ${entry.id}: the id is taken`)
    }
    record({ kind: 'entry', key: entry.id, value: entry })
    return { entry, existing: false }
  }

  update(
    id: string,
    change: (entry: RegistrationEntry) => RegistrationEntry,
    record: Record,
  ): RegistrationEntry {
    const row = this.#row(id)
    if (row === undefined) throw new AssayError('not-found', `cannot update entry ${id}: not found`)
    const before = decode(row)
    const after = { ...change(before), id, revisionNumber: before.revisionNumber + 1 }
    this.#requireBundles(after)
    this.#replace(row[0], after, record)
    return after
  }

  delete(
    id: string,
    options: {
      readonly record: Record
      readonly check?: ((entry: RegistrationEntry) => void) | undefined
    },
  ): RegistrationEntry {
    const { record, check } = options
    const row = this.#row(id)
    if (row === undefined) throw new AssayError('not-found', `cannot delete entry ${id}: not found`)
    check?.(decode(row))
    return this.#remove(row, record)
  }

  prune(nowSeconds: number, record: Record): readonly RegistrationEntry[] {
    const rows = this.#expired.all(nowSeconds) as unknown as readonly Row[]
    return rows.map((row) => this.#remove(row, record))
  }

  federatingWith(trustDomain: TrustDomain): readonly RegistrationEntry[] {
    return (this.#federating.all(trustDomain) as unknown as readonly Row[]).map(decode)
  }

  deleteFederating(trustDomain: TrustDomain, record: Record): void {
    for (const row of this.#federating.all(trustDomain) as unknown as readonly Row[]) {
      this.#remove(row, record)
    }
  }

  /** Takes a trust domain out of every entry, as an update of each, so that agents see it. */
  dissociate(trustDomain: TrustDomain, record: Record): void {
    for (const row of this.#federating.all(trustDomain) as unknown as readonly Row[]) {
      const entry = decode(row)
      const after = {
        ...entry,
        federatesWith: entry.federatesWith.filter((name) => name !== trustDomain),
        revisionNumber: entry.revisionNumber + 1,
      }
      this.#replace(row[0], after, record)
    }
  }

  #row(id: string): Row | undefined {
    return this.#byId.get(id) as unknown as Row | undefined
  }

  #replace(row: number, entry: RegistrationEntry, record: Record): void {
    this.#update.run(...encode(entry), row)
    this.#selectors.replace(row, entry.selectors)
    this.#federation.replace(row, entry.federatesWith)
    record({ kind: 'entry', key: entry.id, value: entry })
  }

  #remove(row: Row, record: Record): RegistrationEntry {
    this.#delete.run(row[0])
    const entry = decode(row)
    record({ kind: 'entry', key: entry.id, value: undefined })
    return entry
  }

  #requireBundles(entry: RegistrationEntry): void {
    for (const trustDomain of entry.federatesWith) {
      if (this.#hasBundle.get(trustDomain) !== undefined) continue
      throw new AssayError(
        'failed-precondition',
        `cannot federate entry ${entry.id} with ${trustDomain}: there is no bundle of it; set one first`,
        { reason: 'no-bundle' },
      )
    }
  }
}

function conditionOf(filter: EntryFilter): Condition {
  const { spiffeId, spiffeIdPrefixes, parentId, selectors, federatesWith, hint, downstream } =
    filter
  const condition = new ConditionBuilder()
    .equals('spiffe_id', spiffeId)
    .isBelow('spiffe_id', spiffeIdPrefixes)
    .equals('parent_id', parentId)
    .equals('hint', hint)
    .equals('downstream', downstream)
  if (selectors !== undefined) {
    condition.matches('entry_selectors', selectors.match, selectors.selectors)
  }
  if (federatesWith !== undefined) {
    condition.matches('entry_federation', federatesWith.match, federatesWith.trustDomains)
  }
  return condition
}

function encode(entry: RegistrationEntry): readonly (string | number)[] {
  return [
    entry.id,
    entry.spiffeId,
    entry.parentId,
    JSON.stringify(entry.selectors),
    entry.x509SvidTtlSeconds,
    entry.jwtSvidTtlSeconds,
    JSON.stringify(entry.federatesWith),
    JSON.stringify(entry.dnsNames),
    Number(entry.admin),
    Number(entry.downstream),
    Number(entry.storeSvid),
    entry.hint,
    entry.expiresAtSeconds,
    entry.revisionNumber,
    entry.createdAtSeconds,
    Number(entry.disableX509SvidPrefetch),
    Number(entry.jwtSvidIncludeJti),
  ]
}

function decode(row: Row): RegistrationEntry {
  return {
    id: row[1],
    spiffeId: row[2],
    parentId: row[3],
    selectors: JSON.parse(row[4]) as readonly Selector[],
    x509SvidTtlSeconds: row[5],
    jwtSvidTtlSeconds: row[6],
    federatesWith: JSON.parse(row[7]) as readonly TrustDomain[],
    dnsNames: JSON.parse(row[8]) as readonly string[],
    admin: row[9] === 1,
    downstream: row[10] === 1,
    storeSvid: row[11] === 1,
    hint: row[12],
    expiresAtSeconds: row[13],
    revisionNumber: row[14],
    createdAtSeconds: row[15],
    disableX509SvidPrefetch: row[16] === 1,
    jwtSvidIncludeJti: row[17] === 1,
  }
}
