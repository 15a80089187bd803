import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { AssayError } from '#base/errors.ts'
import { type Log, silentLog } from '#base/log.ts'
import { openDiskKeyManager } from './disk.ts'

const run = promisify(execFile)

async function newDirectory(): Promise<AsyncDisposable & { path: string; file: string }> {
  const path = await mkdtemp(join(tmpdir(), 'assay-disk-'))
  return {
    path,
    file: join(path, 'private', 'keys.json'),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  }
}

/** A file as an operator or a fault may have left it. */
async function openWith(content: string, mode = 0o600): Promise<unknown> {
  await using directory = await newDirectory()
  const path = join(directory.path, 'keys.json')
  await writeFile(path, content)
  await chmod(path, mode)
  return await openDiskKeyManager({ path, log: silentLog })
}

const refusal = (words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof AssayError)
  assert.equal(error.code, 'failed-precondition')
  assert.match(error.message, /^cannot load keys from \/.*keys\.json: /)
  assert.match(error.message, words)
  return true
}

const pkcs8 = (type: 'ed25519' | 'ec') =>
  (type === 'ec'
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : generateKeyPairSync('ed25519')
  ).privateKey
    .export({ type: 'pkcs8', format: 'der' })
    .toString('base64')

test('openDiskKeyManager() reads what SPIRE writes', async () => {
  await using directory = await newDirectory()
  const path = join(directory.path, 'keys.json')
  const content = JSON.stringify({ keys: { 'x509-CA-A': pkcs8('ec') } }, undefined, '\t')
  await writeFile(path, content, { mode: 0o600 })
  await using manager = await openDiskKeyManager({ path, log: silentLog })
  assert.deepEqual(
    manager.keys().map(({ id, type }) => [id, type]),
    [['x509-CA-A', 'ec-p256']],
  )
})

test('openDiskKeyManager() says at each start that a disk is no HSM', async () => {
  await using directory = await newDirectory()
  const warnings: string[] = []
  const log: Log = { ...silentLog, warn: (_, message) => warnings.push(message) }
  await using _manager = await openDiskKeyManager({ path: directory.file, log })
  assert.match(warnings.join(), /not in an HSM/)
})

test('openDiskKeyManager() refuses a damaged file, names it, and quotes no key', async () => {
  const key = pkcs8('ec')
  const whole = JSON.stringify({ keys: { k: key } })
  await assert.rejects(openWith(''), refusal(/not whole JSON/))
  await assert.rejects(openWith('null'), refusal(/no object "keys"/))
  await assert.rejects(openWith('{"keys":[]}'), refusal(/no object "keys"/))
  await assert.rejects(openWith('{"keys":{"k":7}}'), refusal(/key "k": it is not text/))
  await assert.rejects(openWith('{"keys":{"k":"%%%"}}'), refusal(/key "k": it is not base64/))
  await assert.rejects(openWith('{"keys":{"k":"AAAA"}}'), refusal(/key "k": it is not a PKCS#8/))
  await assert.rejects(
    openWith(JSON.stringify({ keys: { k: pkcs8('ed25519') } })),
    refusal(/type is not supported/),
  )
  for (let length = 1; length < whole.length; length++) {
    await assert.rejects(openWith(whole.slice(0, length)), (error: Error) => {
      refusal(/not whole JSON/)(error)
      assert.ok(!`${error.message}${String(error.cause)}`.includes(key.slice(0, 8)))
      return true
    })
  }
})

test('openDiskKeyManager() refuses a file that others may read', async () => {
  await assert.rejects(openWith('{"keys":{}}', 0o640), refusal(/run chmod 0600/))
})

test('openDiskKeyManager() makes directory and file private whatever the umask is', async () => {
  await using directory = await newDirectory()
  const umask = process.umask(0)
  try {
    await using manager = await openDiskKeyManager({ path: directory.file, log: silentLog })
    await manager.generateKey('k', 'ec-p256')
  } finally {
    process.umask(umask)
  }
  assert.equal((await stat(directory.file)).mode & 0o777, 0o600)
  assert.equal((await stat(join(directory.path, 'private'))).mode & 0o777, 0o700)
  assert.deepEqual(await readdir(join(directory.path, 'private')), ['keys.json'])
})

test('generateKey() of a disk that is full fails, keeps the old keys and leaves nothing half-written', async () => {
  await using directory = await newDirectory()
  {
    await using manager = await openDiskKeyManager({ path: directory.file, log: silentLog })
    await manager.generateKey('old', 'ec-p256')
  }
  const before = await readFile(directory.file)
  // A limit on file size fails a write part of the way, as a full disk does.
  const script = `
    import { silentLog } from '#base/log.ts'
    import { openDiskKeyManager } from '#server/plugin/key-manager/disk.ts'
    const manager = await openDiskKeyManager({ path: process.argv[1], log: silentLog })
    const error = await manager.generateKey('new', 'rsa-2048').catch((error) => error)
    const signs = (await manager.key('old').sign(new Uint8Array(1))).length
    process.stdout.write(JSON.stringify({ code: error.code, signs, ids: manager.keys().map(({ id }) => id) }))`
  const limits = ['--fsize=400', process.execPath, '--input-type=module', '--eval', script]
  const { stdout } = await run('prlimit', [...limits, directory.file])
  assert.deepEqual(JSON.parse(stdout), { code: 'unavailable', signs: 64, ids: ['old'] })
  assert.deepEqual(await readFile(directory.file), before)
  assert.deepEqual(await readdir(join(directory.path, 'private')), ['keys.json'])
})

test('generateKey() is not hindered by what an interrupted run has left', async () => {
  await using directory = await newDirectory()
  await using manager = await openDiskKeyManager({ path: directory.file, log: silentLog })
  await manager.generateKey('a', 'ec-p256')
  await writeFile(`${directory.file}.new`, 'half of a fi', { mode: 0o644 })
  await manager.generateKey('b', 'ec-p256')
  assert.equal((await stat(directory.file)).mode & 0o777, 0o600)
  await using again = await openDiskKeyManager({ path: directory.file, log: silentLog })
  assert.equal(again.keys().length, 2)
})
