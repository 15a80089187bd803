import { constants, existsSync } from 'node:fs'
import { chown, lchown, mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import process from 'node:process'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { version } from '#base/version.ts'
import type { ServerConfig } from '#server/config.ts'
import {
  inspectDatabase,
  lockDatastore,
  moveOn,
  schemaVersion,
} from '#server/offline/database-file.ts'
import { loadOwnership } from '../helper/ownership.ts'
import type { BackupFile, BackupManifest } from './manifest.ts'
import { BackupReader } from './read-backup.ts'

/** How far numbers that only grow are moved on: more than anybody changes between two backups. */
export const movedOnBy = 1_000_000

export interface RestoreOptions {
  readonly clock: Clock
  readonly random: Random
  /** Put aside what is there. */
  readonly force: boolean
}

/** What was done. */
export interface Restored {
  readonly manifest: BackupManifest
  readonly files: readonly string[]
  /** What was there before, under its new names. */
  readonly setAside: readonly string[]
}

/**
 * Puts a backup in the place of a server's data, while no server runs: everything is checked before anything is changed.
 *
 * @throws AssayError that says why not.
 */
export async function restoreBackup(
  path: string,
  config: ServerConfig,
  options: RestoreOptions,
): Promise<Restored> {
  await using reader = await BackupReader.open(path)
  const manifest = reader.manifest
  requireFitting(manifest, config)
  await makeDataDirectory(config.data_dir)
  await mkdir(dirname(config.datastore.path), { recursive: true, mode: 0o700 })
  using _lock = lockOf(config)
  const targets = {
    'server-id': join(config.data_dir, 'server-id'),
    'datastore.sqlite3': config.datastore.path,
  }
  const present = [...Object.values(targets), ...sidecars(config.datastore.path)].filter((file) =>
    existsSync(file),
  )
  if (present.length > 0 && !options.force) {
    throw new AssayError(
      'already-exists',
      `cannot restore over ${present[0]}: there is data already; --force puts it aside`,
      { reason: 'data-exists' },
    )
  }
  const suffix = options.random.bytes(4).toHex()
  const written: (readonly [temporary: string, target: string])[] = []
  try {
    for (const file of manifest.files) {
      const temporary = `${targets[file.name]}.restore-${suffix}`
      written.push([temporary, targets[file.name]])
      await copy(reader, file, temporary)
    }
    const datastore = `${targets['datastore.sqlite3']}.restore-${suffix}`
    requireSound(path, datastore, manifest)
    moveOn(datastore, movedOnBy)
    await giveToOwner(config.data_dir, [
      ...written.map(([temporary]) => temporary),
      `${config.datastore.path}.lock`,
    ])
    const setAside = await putAside(present, options.clock)
    for (const [temporary, target] of written) await rename(temporary, target)
    for (const folder of new Set(written.map(([, target]) => dirname(target)))) {
      await using handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
      await handle.sync()
    }
    return { manifest, files: written.map(([, target]) => target), setAside }
  } finally {
    for (const [temporary] of written) await rm(temporary, { force: true })
  }
}

function requireFitting(manifest: BackupManifest, config: ServerConfig): void {
  if (manifest.trustDomain !== config.trust_domain) {
    throw new AssayError(
      'failed-precondition',
      `cannot restore the backup of ${manifest.trustDomain}: server.yaml is for ${config.trust_domain}`,
      { reason: 'other-trust-domain' },
    )
  }
  if (manifest.schemaVersion > schemaVersion) {
    throw new AssayError(
      'failed-precondition',
      `cannot restore a backup of schema ${manifest.schemaVersion} (assay ${manifest.version}): this is assay ${version}, which knows schema ${schemaVersion}; install the newer one`,
      { reason: 'schema-newer' },
    )
  }
}

/** The datastore's own message says another *server*, which is right here too. */
const lockOf = (config: ServerConfig): Disposable => {
  try {
    return lockDatastore(config.datastore.path)
  } catch (cause) {
    if (!(cause instanceof AssayError) || cause.reason !== 'datastore-locked') throw cause
    throw new AssayError(
      'failed-precondition',
      `cannot restore into ${config.data_dir}: a server uses it; stop it first`,
      { reason: 'datastore-locked', cause },
    )
  }
}

const sidecars = (path: string): readonly string[] => [`${path}-wal`, `${path}-shm`]

async function copy(reader: BackupReader, file: BackupFile, path: string): Promise<void> {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  await using into = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  await into.chmod(0o600)
  await reader.copyNext(file, into)
  await into.sync()
}

/** The checksum says that the file is what was sent; this, that it is a datastore. */
function requireSound(backup: string, path: string, manifest: BackupManifest): void {
  const { damage, isOurs, hasProgram, schemaVersion: found, trustDomains } = inspectDatabase(path)
  const why =
    damage !== 'ok'
      ? `its datastore is damaged: ${damage}`
      : hasProgram
        ? 'its datastore holds triggers or views, which no server makes'
        : !isOurs ||
            found !== manifest.schemaVersion ||
            !trustDomains.includes(manifest.trustDomain)
          ? 'its datastore is not the one its manifest tells of'
          : undefined
  if (why === undefined) return
  throw new AssayError('invalid-argument', `cannot use the backup ${backup}: ${why}`, {
    reason: 'backup-unusable',
  })
}

/** On a new machine root makes it, for the user that the package made for the server. */
async function makeDataDirectory(directory: string): Promise<void> {
  const made = await mkdir(directory, { recursive: true, mode: 0o700 })
  if (made === undefined || process.geteuid?.() !== 0) return
  try {
    const { uid, gid } = await loadOwnership('assay-server', undefined)
    if (uid !== undefined && gid !== undefined) await chown(directory, uid, gid)
  } catch {
    // There is no such user: the server runs as another, to whom the directory is then given by hand.
  }
}

/**
 * Restored by root, the files are the server's all the same. What the server's user puts in their places meanwhile is
 * not followed anywhere.
 */
async function giveToOwner(directory: string, files: readonly string[]): Promise<void> {
  if (process.geteuid?.() !== 0) return
  const { uid, gid } = await stat(directory)
  for (const file of files) await lchown(file, uid, gid)
}

async function putAside(files: readonly string[], clock: Clock): Promise<readonly string[]> {
  const stamp = clock.now().toString({ smallestUnit: 'second' }).replaceAll(/[-:]/g, '')
  const aside = files.map((file) => `${file}.before-${stamp}`)
  for (const [index, file] of files.entries()) await rename(file, aside[index] ?? file)
  return aside
}
