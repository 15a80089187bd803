import assert from 'node:assert/strict'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { type Log, silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { openAlternativeKeys } from './alternative-keys.ts'
import type { Sealer } from './key-manager.ts'

async function newFile(): Promise<AsyncDisposable & { readonly path: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'assay-pq-'))
  return {
    path: join(directory, 'post-quantum-keys.json'),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

const open = (path: string, sealer?: Sealer, log: Log = silentLog) =>
  openAlternativeKeys({ path, sealer, random: new SystemRandom(), log })

/** Stands for an HSM: binds the name, and refuses what another has sealed. */
function sealerOf(number: number): Sealer {
  const mask = (bytes: Uint8Array) => bytes.map((byte) => byte ^ number)
  return {
    where: `a key in token ${number}`,
    seal: async (name, secret) => new TextEncoder().encode(`${name} ${mask(secret).toHex()}`),
    async unseal(name, sealed) {
      const text = new TextDecoder().decode(sealed)
      if (!text.startsWith(`${name} `)) throw new AssayError('failed-precondition', 'wrong name')
      return mask(Uint8Array.fromHex(text.slice(name.length + 1)))
    },
  }
}

test('openAlternativeKeys() has the same keys again after a restart, in a file of its owner alone', async () => {
  await using file = await newFile()
  const first = await open(file.path)
  const made = await first.generate('x509-ca/A/1', 'ml-dsa-44')
  await first.generate('x509-ca/B/1', 'ml-dsa-65')
  await first.destroy('x509-ca/B/1')
  await first.destroy('never there')
  assert.equal((await stat(file.path)).mode & 0o777, 0o600)
  const second = await open(file.path)
  assert.deepEqual(second.get('x509-ca/A/1')?.publicKey, made.publicKey)
  assert.equal(second.get('x509-ca/B/1'), undefined)
})

test('openAlternativeKeys() says at every start that nothing seals the file, and where the keys are', async () => {
  await using file = await newFile()
  const said: string[] = []
  const log = { ...silentLog, warn: (_fields: object, message: string) => said.push(message) }
  const keys = await open(file.path, undefined, log as unknown as Log)
  assert.deepEqual(said, ['post-quantum keys are in a file, and no HSM seals them'])
  assert.equal(keys.where, `software, file ${file.path}, not sealed`)
})

test('openAlternativeKeys() with a sealer writes no seed, and reads only what that sealer sealed', async () => {
  await using file = await newFile()
  const sealed = await open(file.path, sealerOf(1))
  assert.match(sealed.where, /, sealed by a key in token 1$/)
  const made = await sealed.generate('x509-ca/A/1', 'ml-dsa-44')
  const written = JSON.parse(await readFile(file.path, 'utf8'))
  assert.deepEqual(Object.keys(written.keys['x509-ca/A/1']), ['parameter_set', 'sealed'])
  const again = await open(file.path, sealerOf(1))
  assert.deepEqual(again.get('x509-ca/A/1')?.publicKey, made.publicKey)
  await assert.rejects(open(file.path), {
    code: 'failed-precondition',
    message: /sealed by an HSM, and key_manager names none/,
  })
  written.keys['x509-ca/A/2'] = written.keys['x509-ca/A/1']
  await writeFile(file.path, JSON.stringify(written))
  await assert.rejects(open(file.path, sealerOf(1)), { message: /wrong name/ })
})

test('openAlternativeKeys() waits for an HSM that is away, and changes nothing meanwhile', async () => {
  await using file = await newFile()
  const made = await (await open(file.path, sealerOf(1))).generate('x509-ca/A/1', 'ml-dsa-44')
  let isAway = true
  const away = () => new AssayError('unavailable', 'the hsm is away')
  const sealer: Sealer = {
    ...sealerOf(1),
    unseal: (name, sealed) => (isAway ? Promise.reject(away()) : sealerOf(1).unseal(name, sealed)),
  }
  const keys = await open(file.path, sealer)
  assert.equal(keys.locked, 'the hsm is away')
  assert.equal(keys.get('x509-ca/A/1'), undefined)
  const unavailable = { code: 'unavailable', message: /the hsm is away/ }
  await assert.rejects(keys.unlock(), unavailable)
  await assert.rejects(keys.generate('x509-ca/B/1', 'ml-dsa-44'), unavailable)
  await assert.rejects(keys.destroy('x509-ca/A/1'), unavailable)
  isAway = false
  await keys.unlock()
  assert.equal(keys.locked, undefined)
  assert.deepEqual(keys.get('x509-ca/A/1')?.publicKey, made.publicKey)
})

test('openAlternativeKeys() with an HSM that cannot seal says so, loudly and in where the keys are', async () => {
  await using file = await newFile()
  const said: string[] = []
  const log = { ...silentLog, error: (_fields: object, message: string) => said.push(message) }
  const cannot: Sealer = {
    ...sealerOf(1),
    seal: () => Promise.reject(new AssayError('unimplemented', 'cannot seal: no AES-GCM')),
  }
  const keys = await open(file.path, cannot, log as unknown as Log)
  await keys.generate('x509-ca/A/1', 'ml-dsa-44')
  assert.match(keys.where, /, not sealed: cannot seal: no AES-GCM$/)
  assert.deepEqual(said, ['post-quantum keys are written to a file without being sealed'])
  assert.ok((await open(file.path, cannot)).get('x509-ca/A/1'))
})

test('openAlternativeKeys() keeps what is not sealed while it waits for what is', async () => {
  await using file = await newFile()
  const plain = await (await open(file.path)).generate('x509-ca/A/1', 'ml-dsa-44')
  const read = async (path: string) => JSON.parse(await readFile(path, 'utf8'))
  const first = await read(file.path)
  await using other = await newFile()
  await (await open(other.path, sealerOf(1))).generate('x509-ca/B/1', 'ml-dsa-44')
  const both = { ...first, keys: { ...first.keys, ...(await read(other.path)).keys } }
  await writeFile(file.path, JSON.stringify(both))
  let isAway = true
  const keys = await open(file.path, {
    ...sealerOf(1),
    async unseal(name, sealed) {
      if (isAway) throw new AssayError('unavailable', 'the hsm is away')
      return await sealerOf(1).unseal(name, sealed)
    },
  })
  isAway = false
  await keys.unlock()
  assert.deepEqual(keys.get('x509-ca/A/1')?.publicKey, plain.publicKey)
})

test('openAlternativeKeys() seals what was written without a sealer as soon as it is written again', async () => {
  await using file = await newFile()
  const made = await (await open(file.path)).generate('x509-ca/A/1', 'ml-dsa-44')
  const sealed = await open(file.path, sealerOf(1))
  assert.deepEqual(sealed.get('x509-ca/A/1')?.publicKey, made.publicKey)
  await sealed.generate('x509-ca/B/1', 'ml-dsa-44')
  assert.doesNotMatch(await readFile(file.path, 'utf8'), /"seed"/)
})

test('openAlternativeKeys() refuses a file that is open to others, damaged or cut short, and quotes no key', async () => {
  await using file = await newFile()
  await (await open(file.path)).generate('x509-ca/A/1', 'ml-dsa-44')
  const whole = await readFile(file.path, 'utf8')
  const { seed } = JSON.parse(whole).keys['x509-ca/A/1']
  const refused = async (content: string): Promise<void> => {
    await writeFile(file.path, content)
    await assert.rejects(open(file.path), (error: unknown) => {
      assert.ok(error instanceof AssayError, String(error))
      assert.equal(error.code, 'failed-precondition')
      assert.ok(!`${error.message} ${error.cause}`.includes(seed.slice(0, 12)), error.message)
      return true
    })
  }
  for (let length = 0; length < whole.length - 2; length += 3) await refused(whole.slice(0, length))
  await refused(whole.replace('"version": 1', '"version": 2'))
  await refused(whole.replace('ml-dsa-44', 'ml-dsa-99'))
  await refused(whole.replace(seed, seed.slice(4)))
  await refused(whole.replace('"seed"', '"sead"'))
  await refused('{"version": 1, "keys": []}')
  await writeFile(file.path, whole)
  await chmod(file.path, 0o640)
  await assert.rejects(open(file.path), { reason: 'secret-file-not-private' })
})
