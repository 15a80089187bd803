import { parseTrustDomain, type TrustDomain } from '#spiffe/trust-domain.ts'

/** The only form there is so far. */
const backupFormat = 1

/** The first file of a backup. */
export const manifestName = 'manifest.json'

/** What follows it. Nothing else is in a backup. */
const backupFileNames = ['server-id', 'datastore.sqlite3'] as const

/** Largest manifest that is read, in bytes. */
export const maxManifestBytes = 4 * 2 ** 20

/** A file of a backup. */
export interface BackupFile {
  readonly name: (typeof backupFileNames)[number]
  readonly bytes: number
  /** Lower-case hex. */
  readonly sha256: string
}

/** What a backup says of itself. */
export interface BackupManifest {
  /** The version of the server that made it. */
  readonly version: string
  readonly schemaVersion: number
  readonly trustDomain: TrustDomain
  readonly serverId: string
  readonly createdAt: Temporal.Instant
  /** Decimal. */
  readonly revision: string
  readonly bundles: readonly {
    readonly trust_domain: string
    /** Decimal. */
    readonly sequence_number: string
  }[]
  /** Where the signing keys are, which are not in it. */
  readonly keysIn: string
  readonly keys: readonly { readonly id: string; readonly state: string }[]
  readonly files: readonly BackupFile[]
}

/**
 * Reads a manifest.
 *
 * @throws SyntaxError that says what is wrong; for a form that is newer than this program, both.
 */
export function parseManifest(text: string): BackupManifest {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new SyntaxError('its manifest is not JSON', { cause })
  }
  const members = record(value, 'manifest')
  if (members['program'] !== 'assay-server') throw new SyntaxError('it is no backup of a server')
  if (members['format'] !== backupFormat) {
    throw new SyntaxError(
      `it has the format ${JSON.stringify(members['format'])} of assay ${members['version']}; this one reads format ${backupFormat}`,
    )
  }
  const files = array(members['files'], 'files').map(parseFile)
  if (files.map(({ name }) => name).join() !== backupFileNames.join()) {
    throw new SyntaxError(`its files are not ${backupFileNames.join(' and ')}`)
  }
  return {
    version: string(members, 'version'),
    schemaVersion: count(members, 'schema_version'),
    trustDomain: parseTrustDomain(string(members, 'trust_domain')),
    serverId: matching(members, 'server_id', /^[0-9a-f-]{36}$/),
    createdAt: instant(members, 'created_at'),
    revision: matching(members, 'revision', /^\d{1,20}$/),
    bundles: array(members['bundles'], 'bundles').map((item) => {
      const bundle = record(item, 'bundles')
      return {
        trust_domain: string(bundle, 'trust_domain'),
        sequence_number: matching(bundle, 'sequence_number', /^\d{1,20}$/),
      }
    }),
    keysIn: string(members, 'keys_in'),
    keys: array(members['keys'], 'keys').map((item) => {
      const key = record(item, 'keys')
      return { id: string(key, 'id'), state: string(key, 'state') }
    }),
    files,
  }
}

type Members = Readonly<Record<string, unknown>>

function parseFile(item: unknown): BackupFile {
  const file = record(item, 'files')
  const name = backupFileNames.find((known) => known === file['name'])
  if (name === undefined) throw wrong('files')
  return {
    name,
    bytes: count(file, 'bytes'),
    sha256: matching(file, 'sha256', /^[0-9a-f]{64}$/),
  }
}

function record(value: unknown, name: string): Members {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(name)
  return value as Members
}

function array(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong(name)
  return value
}

const string = (members: Members, name: string): string => matching(members, name, /^.{1,4096}$/s)

function matching(members: Members, name: string, form: RegExp): string {
  const value = members[name]
  if (typeof value !== 'string' || !form.test(value)) throw wrong(name)
  return value
}

function count(members: Members, name: string): number {
  const value = members[name]
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw wrong(name)
  return value as number
}

function instant(members: Members, name: string): Temporal.Instant {
  try {
    return Temporal.Instant.from(string(members, name))
  } catch (cause) {
    throw new SyntaxError(`its manifest is wrong: ${name}`, { cause })
  }
}

const wrong = (name: string): SyntaxError => new SyntaxError(`its manifest is wrong: ${name}`)
