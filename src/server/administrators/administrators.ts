import type { NameTable } from '#host/name-service.ts'
import type { UnixPeer } from '#rpc/call.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { CallSelection } from './calls.ts'
import { type Grant, Rights } from './rights.ts'

/** One row of `administrators`: who, by exactly one of three names, and how far. */
export interface AdministratorRow {
  /** A user or group by name or number. */
  readonly unix_user: string | undefined
  readonly unix_group: string | undefined
  readonly spiffe_id: SpiffeId | undefined
  readonly calls: CallSelection
  readonly spiffe_id_prefixes: readonly SpiffeId[] | undefined
}

export interface AdministratorsOptions {
  /** Undefined: whoever may open the socket has all rights. */
  readonly rows: readonly AdministratorRow[] | undefined
  /** IDs with all rights, unless a row names them too. */
  readonly adminIds: readonly SpiffeId[]
  /** Users and groups by name. */
  readonly users: Pick<NameTable, 'idOf' | 'nameOf' | 'refresh'>
  readonly groups: Pick<NameTable, 'idOf'>
  /** The user the server runs as. */
  readonly ownUid: number
}

/** A local caller, and what they may do. */
export interface LocalCaller {
  /** Name of the user; undefined when it has none. */
  readonly user: string | undefined
  readonly rights: Rights
}

/** Who may administer: the configuration's word, which does not change while the server runs. */
export class Administrators {
  /** IDs that the configuration makes administrators; of any trust domain. */
  readonly ids: ReadonlySet<SpiffeId>
  readonly #options: AdministratorsOptions
  readonly #rowsById = new Map<SpiffeId, Grant[]>()

  constructor(options: AdministratorsOptions) {
    this.#options = options
    for (const row of options.rows ?? []) {
      const { spiffe_id: id } = row
      if (id === undefined) continue
      const grants = this.#rowsById.get(id) ?? []
      this.#rowsById.set(id, grants)
      grants.push(grantOf(row, `spiffe_id ${id}`))
    }
    this.ids = new Set([...options.adminIds, ...this.#rowsById.keys()])
  }

  /**
   * What the process at the other end of the administration socket may do. User and groups are those with which it
   * connected, by the kernel's word. Root and the server's own user have all rights, or a mistake in the
   * configuration would lock everybody out; both could read the datastore anyhow.
   */
  async ofProcess({ uid, gid, groups = [] }: UnixPeer): Promise<LocalCaller> {
    const { rows, users, ownUid } = this.#options
    users.refresh()
    const user = await users.nameOf(uid)
    const whole = (by: string): LocalCaller => ({
      user,
      rights: new Rights(user ?? `uid ${uid}`, [{ by, calls: 'all', prefixes: undefined }]),
    })
    if (rows === undefined) return whole('socket')
    if (uid === 0) return whole('root')
    if (uid === ownUid) return whole('server user')
    const found: Grant[] = []
    for (const row of rows) {
      if (row.unix_user !== undefined && (await numberOf(row.unix_user, users)) === uid) {
        found.push(grantOf(row, `unix_user ${row.unix_user}`))
      }
      if (row.unix_group === undefined) continue
      const group = await numberOf(row.unix_group, this.#options.groups)
      if (group !== undefined && (group === gid || groups.includes(group))) {
        found.push(grantOf(row, `unix_group ${row.unix_group}`))
      }
    }
    return { user, rights: new Rights(user ?? `uid ${uid}`, found) }
  }

  /** Users and groups of rows that this machine does not know now: such a row is about nobody. */
  async unknownNames(): Promise<readonly string[]> {
    const { rows = [], users, groups } = this.#options
    const unknown: string[] = []
    for (const { unix_user: user, unix_group: group } of rows) {
      if (user !== undefined && (await numberOf(user, users)) === undefined) {
        unknown.push(`unix_user ${user}`)
      }
      if (group !== undefined && (await numberOf(group, groups)) === undefined) {
        unknown.push(`unix_group ${group}`)
      }
    }
    return unknown
  }

  /**
   * What a verified SPIFFE ID may do; undefined when it is no administrator. Rows of `administrators` narrow what
   * `admin_ids` or an entry would give it.
   */
  ofId(id: SpiffeId, hasEntry: () => boolean): Rights | undefined {
    const rows = this.#rowsById.get(id)
    if (rows !== undefined) return new Rights(id, rows)
    const whole = (by: string): Rights =>
      new Rights(id, [{ by, calls: 'all', prefixes: undefined }])
    if (this.ids.has(id)) return whole('admin_ids')
    return hasEntry() ? whole('entry') : undefined
  }
}

const grantOf = (row: AdministratorRow, by: string): Grant => ({
  by,
  calls: row.calls,
  prefixes: row.spiffe_id_prefixes,
})

async function numberOf(name: string, names: Pick<NameTable, 'idOf'>): Promise<number | undefined> {
  return /^\d{1,10}$/.test(name) ? Number(name) : await names.idOf(name)
}
