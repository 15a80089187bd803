import assert from 'node:assert/strict'
import { createPrivateKey } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import process from 'node:process'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { utf8Bytes } from '#base/bytes.ts'
import { FakeClock } from '#base/fake-clock.ts'
import type { Log, LogFields } from '#base/log.ts'
import { newFaultyHsm } from '../support/faulty-hsm.ts'
import { foundInMemory } from '../support/process-memory.ts'
import { until } from '../support/signing-load.ts'

/** Keeps every record, errors and their causes included, as text. */
class RecordingLog implements Log {
  readonly records: string[]
  readonly #fields: LogFields

  constructor(records: string[] = [], fields: LogFields = {}) {
    this.records = records
    this.#fields = fields
  }
  debug(fields: LogFields, message: string): void {
    this.records.push(
      inspect({ ...this.#fields, ...fields, message }, { depth: null, showHidden: true }),
    )
  }
  info(fields: LogFields, message: string): void {
    this.debug(fields, message)
  }
  warn(fields: LogFields, message: string): void {
    this.debug(fields, message)
  }
  error(fields: LogFields, message: string): void {
    this.debug(fields, message)
  }
  child(fields: LogFields): Log {
    return new RecordingLog(this.records, { ...this.#fields, ...fields })
  }
}

test('the PIN is in no argument, no environment, no log record and no error', async () => {
  await using hsm = await newFaultyHsm()
  const { pin, pinFile } = hsm.token
  const log = new RecordingLog()
  const shown: string[] = []
  await using manager = await hsm.open({ log, clock: new FakeClock() })
  const key = await manager.generateKey('k', 'ec-p256')
  for (const pid of [manager.signerPid, process.pid]) {
    shown.push(await readFile(`/proc/${pid}/cmdline`, 'utf8'))
    shown.push(await readFile(`/proc/${pid}/environ`, 'utf8'))
  }
  // Through every state there is, and what a wrong PIN brings.
  await rm(pinFile)
  await writeFile(pinFile, `${pin}-wrong`, { mode: 0o400 })
  await hsm.misbehave('C_Sign error 0x32')
  shown.push(
    inspect(await key.sign(Uint8Array.of(1)).catch((error: unknown) => error), { depth: null }),
  )
  await until('refused', () => manager.status().state === 'refused')
  shown.push(inspect(manager.status()))
  shown.push(inspect(await manager.resume().catch((error: unknown) => error), { depth: null }))

  assert.ok(log.records.length > 0)
  for (const text of [...shown, ...log.records]) assert.ok(!text.includes(pin), text)
})

test('the PIN is nowhere in the memory of the signer once the token is open', async () => {
  await using hsm = await newFaultyHsm()
  const { pin, pinFile } = hsm.token
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  const search = () =>
    foundInMemory(
      Number(manager.signerPid),
      new Map([
        ['PIN', utf8Bytes(pin)],
        ['PIN as a string of two bytes a letter', Buffer.from(pin, 'utf16le')],
        ['its file', utf8Bytes(pinFile)],
      ]),
    )
  assert.deepEqual([...search()], ['its file'], 'what is there is found, and the PIN is not')
  await hsm.misbehave('C_Sign error 0x32')
  await key.sign(Uint8Array.of(1)).catch(() => undefined)
  await hsm.misbehave('')
  await until('ok', () => manager.status().state === 'ok')
  assert.deepEqual([...search()], ['its file'], 'nor after it was sent again')
})

test('the signer gets the variables modules are configured by, and no others', async () => {
  await using hsm = await newFaultyHsm()
  process.env['ASSAY_TEST_SECRET'] = 'canary'
  process.env['NODE_OPTIONS'] = '--no-warnings'
  try {
    await using manager = await hsm.open()
    const environ = await readFile(`/proc/${manager.signerPid}/environ`, 'utf8')
    assert.match(environ, /SOFTHSM2_CONF=/)
    assert.doesNotMatch(environ, /canary|NODE_OPTIONS/)
  } finally {
    delete process.env['ASSAY_TEST_SECRET']
    delete process.env['NODE_OPTIONS']
  }
})

test('the server’s process maps no PKCS#11 module and holds no private key', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  const maps = async (pid: number | string | undefined) => readFile(`/proc/${pid}/maps`, 'utf8')
  assert.ok(!/softhsm|pkcs11/.test(await maps('self')))
  assert.ok((await maps(manager.signerPid)).includes('libsofthsm2.so'))
  assert.equal(key.publicKey.type, 'public')
  assert.throws(() => createPrivateKey(key.publicKey as never))
})
