import type { DatabaseSync, StatementSync } from 'node:sqlite'
import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Listed, Page } from '../../datastore.ts'
import { listPage } from './paging.ts'
import type { Record } from './writer.ts'

const columns = 'row, trust_domain, document'

type Row = readonly [row: number, trustDomain: TrustDomain, document: string]

/** How a bundle stands in its row: bytes in base64, the 64-bit number in decimal. */
interface Document {
  readonly x509Authorities: readonly {
    readonly certificate: string
    readonly tainted: boolean
    readonly pq?: string
  }[]
  readonly jwtAuthorities: readonly {
    readonly keyId: string
    readonly publicKey: string
    readonly expiresAtSeconds: number
    readonly tainted: boolean
    readonly pq?: { readonly keyId: string; readonly publicKey: string }
  }[]
  readonly refreshHintSeconds: number
  readonly sequenceNumber: string
}

/** Bundles by trust domain. Writes run inside a transaction of the `Writer`. */
export class BundleTable {
  readonly #database: DatabaseSync
  readonly #byName: StatementSync
  readonly #put: StatementSync
  readonly #delete: StatementSync

  constructor(database: DatabaseSync) {
    this.#database = database
    this.#byName = database.prepare(`SELECT ${columns} FROM bundles WHERE trust_domain = ?`)
    this.#put = database.prepare(
      `INSERT INTO bundles (trust_domain, document) VALUES (?, ?)
       ON CONFLICT (trust_domain) DO UPDATE SET document = excluded.document`,
    )
    this.#delete = database.prepare('DELETE FROM bundles WHERE trust_domain = ?')
  }

  get(trustDomain: TrustDomain): Bundle | undefined {
    const row = this.#byName.get(trustDomain) as unknown as Row | undefined
    return row && decode(row)
  }

  list(page: Page): Promise<Listed<Bundle>> {
    const condition = { where: [], values: [] }
    return listPage<Row, Bundle>(
      this.#database,
      { table: 'bundles', columns, condition, decode },
      page,
    )
  }

  update(
    trustDomain: TrustDomain,
    change: (bundle: Bundle | undefined) => Bundle,
    record: Record,
  ): Bundle {
    const before = this.get(trustDomain)
    const wanted = { ...change(before), trustDomain }
    if (before !== undefined && contentOf(before) === contentOf(wanted)) return before
    const after: Bundle =
      before === undefined
        ? wanted
        : {
            ...wanted,
            sequenceNumber: greater(before.sequenceNumber, wanted.sequenceNumber) + 1n,
          }
    this.#put.run(trustDomain, encode(after))
    record({ kind: 'bundle', key: trustDomain, value: after })
    return after
  }

  /** Adds to the sequence number, which is told to nobody. */
  moveOn(trustDomain: TrustDomain, by: bigint): void {
    const bundle = this.get(trustDomain)
    if (bundle === undefined) return
    this.#put.run(trustDomain, encode({ ...bundle, sequenceNumber: bundle.sequenceNumber + by }))
  }

  /** @returns whether there was one. */
  delete(trustDomain: TrustDomain, record: Record): boolean {
    if (this.#delete.run(trustDomain).changes === 0) return false
    record({ kind: 'bundle', key: trustDomain, value: undefined })
    return true
  }
}

const greater = (a: bigint, b: bigint): bigint => (a > b ? a : b)

const contentOf = (bundle: Bundle): string => encode({ ...bundle, sequenceNumber: 0n })

function encode(bundle: Bundle): string {
  const document: Document = {
    x509Authorities: bundle.x509Authorities.map(({ certificate, tainted, pq }) => ({
      certificate: certificate.toBase64(),
      tainted,
      ...(pq !== undefined && { pq: pq.toBase64() }),
    })),
    jwtAuthorities: bundle.jwtAuthorities.map(
      ({ keyId, publicKey, expiresAtSeconds, tainted, pq }) => ({
        keyId,
        publicKey: publicKey.toBase64(),
        expiresAtSeconds,
        tainted,
        ...(pq !== undefined && { pq: { ...pq, publicKey: pq.publicKey.toBase64() } }),
      }),
    ),
    refreshHintSeconds: bundle.refreshHintSeconds,
    sequenceNumber: String(bundle.sequenceNumber),
  }
  return JSON.stringify(document)
}

function decode([, trustDomain, text]: Row): Bundle {
  const document = JSON.parse(text) as Document
  return {
    trustDomain,
    x509Authorities: document.x509Authorities.map(({ certificate, tainted, pq }) => ({
      certificate: Uint8Array.fromBase64(certificate),
      tainted,
      ...(pq !== undefined && { pq: Uint8Array.fromBase64(pq) }),
    })),
    jwtAuthorities: document.jwtAuthorities.map(({ pq, ...authority }) => ({
      ...authority,
      publicKey: Uint8Array.fromBase64(authority.publicKey),
      ...(pq !== undefined && { pq: { ...pq, publicKey: Uint8Array.fromBase64(pq.publicKey) } }),
    })),
    refreshHintSeconds: document.refreshHintSeconds,
    sequenceNumber: BigInt(document.sequenceNumber),
  }
}
