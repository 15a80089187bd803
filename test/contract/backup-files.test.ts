// The archive between a server and `assay restore`: what is refused, and that nothing is changed then.
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { restoreBackup } from '#cli/backup/restore-backup.ts'
import { writeBackup } from '#cli/backup/write-backup.ts'
import { parseConfig } from '#config/parse-config.ts'
import type { BackupPart } from '#rpc/gen/assay/server/v1/backup.ts'
import { newBackupService } from '#server/api/backup.ts'
import { type ServerConfig, serverConfigSchema } from '#server/config.ts'
import { openSqliteDatastore } from '#server/datastore/sql/sqlite.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { newEntry } from '../support/records.ts'

const directory = mkdtempSync(join(tmpdir(), 'assay-backup-'))
after(() => rmSync(directory, { recursive: true }))
const clock = new FakeClock()
const random = new SystemRandom()
const trustDomain = parseTrustDomain('example.org')
const good = join(directory, 'good')
let parts: BackupPart[] = []

before(async () => {
  const path = join(directory, 'from', 'datastore.sqlite3')
  await using datastore = openSqliteDatastore({ path, log: silentLog })
  await datastore.createEntry(newEntry('e1'))
  await datastore.createJoinToken({ value: 'not-to-be-copied', expiresAtSeconds: 1 })
  await datastore.updateBundle(trustDomain, () => ({
    trustDomain,
    x509Authorities: [],
    jwtAuthorities: [],
    refreshHintSeconds: 300,
    sequenceNumber: 4n,
  }))
  const service = newBackupService({
    trustDomain,
    serverName: '00000000-0000-4000-8000-000000000000',
    datastore,
    authorities: { states: () => [] } as never,
    keyManager: { status: () => ({ where: 'memory' }) } as never,
    clock,
  })
  const context = { signal: new AbortController().signal } as never
  parts = await Array.fromAsync(service.create({}, context))
  await write(good, parts)
})

async function* each(of: readonly BackupPart[]): AsyncGenerator<BackupPart> {
  yield* of
}

const write = (path: string, of: readonly BackupPart[], force = false) =>
  writeBackup(path, each(of), { random, force, onProgress: () => {} })

let made = 0
/** A server.yaml whose data_dir is not there yet. */
const newConfig = (name = 'example.org'): ServerConfig =>
  parseConfig(
    serverConfigSchema,
    `trust_domain: ${name}\ndata_dir: data${++made}\nkey_manager: { memory: {} }\n`,
    { file: join(directory, 'server.yaml') },
  )

const restore = (path: string, config: ServerConfig, force = false) =>
  restoreBackup(path, config, { clock, random, force })

/** The good backup with another manifest. */
async function withManifest(change: object): Promise<string> {
  const path = join(directory, `manifest${++made}`)
  const changed = parts.map((one): BackupPart => {
    if (one.part?.$case !== 'manifest') return one
    const value = JSON.stringify({ ...JSON.parse(one.part.value), ...change })
    return { part: { $case: 'manifest', value } }
  })
  await write(path, changed)
  return path
}

/** The good backup with something done to its datastore. */
async function withSql(sql: string): Promise<string> {
  const database = join(directory, `database${++made}`)
  const [name, datastore] = JSON.parse(manifestOf(parts)).files as { bytes: number }[]
  const all = Buffer.concat(
    parts.flatMap(({ part }) => (part?.$case === 'data' ? [part.value] : [])),
  )
  writeFileSync(database, all.subarray(name?.bytes))
  const opened = new DatabaseSync(database)
  opened.exec(sql)
  opened.close()
  const content = readFileSync(database)
  const sha256 = hash('sha256', content)
  const files = [name, { ...datastore, bytes: content.length, sha256 }]
  const path = join(directory, `backup${made}`)
  const value = JSON.stringify({ ...JSON.parse(manifestOf(parts)), files })
  await write(path, [
    { part: { $case: 'manifest', value } },
    { part: { $case: 'data', value: all.subarray(0, name?.bytes) } },
    { part: { $case: 'data', value: content } },
  ])
  return path
}

function manifestOf(of: readonly BackupPart[]): string {
  for (const { part } of of) if (part?.$case === 'manifest') return part.value
  throw new Error('there is no manifest')
}

async function refuses(path: string, config: ServerConfig, message: RegExp): Promise<void> {
  await assert.rejects(restore(path, config), message)
  const left = existsSync(config.data_dir) ? readdirSync(config.data_dir) : []
  assert.deepEqual(
    left.filter((name) => !name.endsWith('.lock')),
    [],
  )
}

test('restoreBackup() brings back what was there, with numbers moved on and no join token', async () => {
  const config = newConfig()
  const { manifest } = await restore(good, config)
  assert.deepEqual([manifest.revision, manifest.bundles[0]?.sequence_number], ['2', '4'])
  assert.equal(readFileSync(good, 'latin1').includes('not-to-be-copied'), false)
  assert.match(readFileSync(join(config.data_dir, 'server-id'), 'utf8'), /^0{8}-/)
  await using datastore = openSqliteDatastore({ path: config.datastore.path, log: silentLog })
  assert.equal(datastore.revision(), 1_000_002)
  assert.equal((await datastore.entry('e1'))?.revisionNumber, 1_000_000)
  assert.equal((await datastore.bundle(trustDomain))?.sequenceNumber, 1_000_004n)
  assert.equal(await datastore.takeJoinToken('not-to-be-copied'), undefined)
})

test('restoreBackup() refuses another trust domain and a newer schema, and names both', async () => {
  await refuses(good, newConfig('other.org'), /of example\.org: server\.yaml is for other\.org/)
  const newer = await withManifest({ schema_version: 99, version: '7.0.0' })
  await refuses(newer, newConfig(), /schema 99 \(assay 7\.0\.0\): this is assay .* knows schema \d/)
  const lying = await withManifest({ schema_version: 0 })
  await refuses(lying, newConfig(), /not the one its manifest tells of/)
})

for (const [what, sql] of [
  [
    'a trigger',
    `CREATE TRIGGER t AFTER DELETE ON join_tokens BEGIN INSERT INTO join_tokens VALUES ('known', 9e9); END`,
  ],
  [
    'a view without an end',
    `ALTER TABLE bundles RENAME TO b; CREATE VIEW bundles AS WITH RECURSIVE n(trust_domain) AS (SELECT 'a' UNION ALL SELECT trust_domain FROM n) SELECT * FROM n`,
  ],
] as const) {
  test(`restoreBackup() refuses a datastore with ${what}, which would act when it is used`, async () => {
    await refuses(await withSql(sql), newConfig(), /triggers or views, which no server makes/)
  })
}

test('restoreBackup() refuses data that is there, and puts it aside with force', async () => {
  const config = newConfig()
  await restore(good, config)
  await assert.rejects(restore(good, config), { reason: 'data-exists' })
  const { setAside } = await restore(good, config, true)
  assert.equal(setAside.length, 2)
  for (const path of setAside) assert.ok(existsSync(path))
})

test('restoreBackup() refuses a datastore that is in use', async () => {
  const config = newConfig()
  await using _server = openSqliteDatastore({ path: config.datastore.path, log: silentLog })
  await assert.rejects(restore(good, config, true), { reason: 'datastore-locked' })
})

test('restoreBackup() refuses a backup that is cut or has a byte changed', async () => {
  const bytes = readFileSync(good)
  const bad = join(directory, 'bad')
  for (const length of [0, 100, 512, 2000, bytes.length - 4096]) {
    writeFileSync(bad, bytes.subarray(0, length))
    await refuses(bad, newConfig(), /cannot use the backup .*(too early|not an archive)/)
  }
  for (const at of [0, 520, bytes.indexOf('server-id\0'), bytes.length - 5000]) {
    const changed = Uint8Array.from(bytes)
    changed[at] = (changed[at] ?? 0) ^ 1
    writeFileSync(bad, changed)
    await refuses(bad, newConfig(), /cannot use the backup/)
  }
  await assert.rejects(restore(join(directory, 'nix'), newConfig()), { code: 'not-found' })
})

test('Datastore.snapshot() leaves nothing behind, and removes what a killed server left', async () => {
  const path = join(directory, 'kept', 'datastore.sqlite3')
  await using datastore = openSqliteDatastore({ path, log: silentLog })
  mkdirSync(join(directory, 'kept', 'snapshot-killed'))
  const stop = new AbortController()
  const options = { signal: stop.signal, onProgress: () => {} }
  {
    await using snapshot = await datastore.snapshot(options)
    assert.equal(statSync(snapshot.path).mode & 0o777, 0o600)
  }
  stop.abort(new Error('enough'))
  await assert.rejects(datastore.snapshot(options), /enough/)
  assert.deepEqual(
    readdirSync(join(directory, 'kept')).filter((name) => name.startsWith('snapshot')),
    [],
  )
})

test('writeBackup() leaves nothing when what comes is not what was announced', async () => {
  const path = join(directory, 'never')
  const flip = (one: BackupPart): BackupPart =>
    one.part?.$case === 'data'
      ? { part: { $case: 'data', value: one.part.value.map((byte) => byte ^ 1) } }
      : one
  for (const wrong of [parts.slice(0, -1), parts.map(flip), [...parts, ...parts.slice(-1)], []]) {
    await assert.rejects(write(path, wrong), /cannot write a backup: the server sent/)
  }
  assert.deepEqual(
    readdirSync(directory).filter((name) => name.startsWith('never')),
    [],
  )
  await assert.rejects(write(good, parts), { code: 'already-exists' })
  await write(good, parts, true)
})
