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

/** Who may administer: the configuration's word. Each call asks anew. */
export class Administrators {
  readonly #options: AdministratorsOptions
  #word: Word

  constructor(options: AdministratorsOptions) {
    this.#options = options
    this.#word = wordOf(options)
  }

  /** IDs that the configuration makes administrators; of any trust domain. */
  get ids(): ReadonlySet<SpiffeId> {
    return this.#word.ids
  }

  /** The configuration has changed: from the next call on this counts. What has begun goes on. */
  replace(word: Pick<AdministratorsOptions, 'rows' | 'adminIds'>): void {
    this.#word = wordOf(word)
  }

  /**
   * What the process at the other end of the administration socket may do. User and groups are those with which it
   * connected, by the kernel's word. Root and the server's own user have all rights, or a mistake in the
   * configuration would lock everybody out; both could read the datastore anyhow.
   */
  async ofProcess({ uid, gid, groups = [] }: UnixPeer): Promise<LocalCaller> {
    const { users, ownUid } = this.#options
    const { rows } = this.#word
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
    const { users, groups } = this.#options
    const { rows = [] } = this.#word
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
    const rows = this.#word.rowsById.get(id)
    if (rows !== undefined) return new Rights(id, rows)
    const whole = (by: string): Rights =>
      new Rights(id, [{ by, calls: 'all', prefixes: undefined }])
    if (this.ids.has(id)) return whole('admin_ids')
    return hasEntry() ? whole('entry') : undefined
  }
}

/** What the configuration says, ready to be looked up. */
interface Word {
  readonly rows: readonly AdministratorRow[] | undefined
  readonly rowsById: ReadonlyMap<SpiffeId, readonly Grant[]>
  readonly ids: ReadonlySet<SpiffeId>
}

function wordOf({ rows, adminIds }: Pick<AdministratorsOptions, 'rows' | 'adminIds'>): Word {
  const rowsById = new Map<SpiffeId, Grant[]>()
  for (const row of rows ?? []) {
    const { spiffe_id: id } = row
    if (id === undefined) continue
    const grants = rowsById.get(id) ?? []
    rowsById.set(id, grants)
    grants.push(grantOf(row, `spiffe_id ${id}`))
  }
  return { rows, rowsById, ids: new Set([...adminIds, ...rowsById.keys()]) }
}

const grantOf = (row: AdministratorRow, by: string): Grant => ({
  by,
  calls: row.calls,
  prefixes: row.spiffe_id_prefixes,
})

async function numberOf(name: string, names: Pick<NameTable, 'idOf'>): Promise<number | undefined> {
  return /^\d{1,10}$/.test(name) ? Number(name) : await names.idOf(name)
}
