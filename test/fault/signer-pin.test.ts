import assert from 'node:assert/strict'
import { chmod, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { SystemRandom } from '#base/random.ts'
import { PinRefusals } from '#hsm/pin-refusals.ts'
import { type FaultyHsm, newFaultyHsm } from '../support/faulty-hsm.ts'
import { until } from '../support/signing-load.ts'

async function writePin(hsm: FaultyHsm, pin: string): Promise<void> {
  await rm(hsm.token.pinFile, { force: true })
  await writeFile(hsm.token.pinFile, pin, { mode: 0o400 })
}

/** Makes the token fail once, so that it is opened, and the PIN sent, again. */
async function loseToken(
  hsm: FaultyHsm,
  key: { sign(message: Uint8Array): Promise<unknown> },
): Promise<void> {
  await hsm.misbehave('C_Sign error 0x32')
  await assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
  await hsm.misbehave('')
}

const minutes = (count: number) => Temporal.Duration.from({ minutes: count })

test('openPkcs11KeyManager() sends a wrong PIN once, and works after resume() with the right one', async () => {
  await using hsm = await newFaultyHsm()
  await writePin(hsm, 'wrong-pin')
  await using manager = await hsm.open()
  const { state, detail } = manager.status()
  assert.equal(state, 'refused')
  assert.match(detail, /CKR_PIN_INCORRECT/)
  assert.doesNotMatch(detail, /wrong-pin/)
  await assert.rejects(manager.generateKey('k', 'ec-p256'), { code: 'unavailable' })
  assert.equal(await hsm.calls('C_Login'), 1)
  await writePin(hsm, hsm.token.pin)
  await manager.resume()
  assert.equal(manager.status().state, 'ok')
  assert.equal(await hsm.calls('C_Login'), 2)
})

test('a refused PIN is not sent again by a server that is started again, until it is written or resumed', async () => {
  await using hsm = await newFaultyHsm()
  const refusalFile = join(hsm.token.directory, 'hsm-pin-refused')
  const options = { refusalFile }
  await writePin(hsm, 'wrong-pin')
  for (let start = 0; start < 3; start++) {
    await using manager = await hsm.open(options)
    assert.equal(manager.status().state, 'refused')
    assert.match(manager.status().detail, /CKR_PIN_INCORRECT/)
    assert.equal(await hsm.calls('C_Login'), 1)
  }
  assert.equal((await stat(refusalFile)).mode & 0o777, 0o600)
  assert.doesNotMatch(await readFile(refusalFile, 'utf8'), /wrong-pin/)
  {
    await using manager = await hsm.open(options)
    await assert.rejects(manager.resume(), { reason: 'hsm-pin-refused' })
    assert.equal(await hsm.calls('C_Login'), 2, 'an operator’s word is one try')
  }
  await writePin(hsm, 'wrong-again')
  {
    await using manager = await hsm.open(options)
    assert.equal(manager.status().state, 'refused')
    assert.equal(await hsm.calls('C_Login'), 3, 'a PIN that was written since is another one')
  }
  await writePin(hsm, hsm.token.pin)
  {
    await using manager = await hsm.open(options)
    assert.equal(manager.status().state, 'ok')
  }
  await assert.rejects(stat(refusalFile), { code: 'ENOENT' })
})

test('a PIN that was put right while the wrong one was being refused is sent at the next start', async () => {
  await using hsm = await newFaultyHsm()
  const options = { refusalFile: join(hsm.token.directory, 'hsm-pin-refused') }
  await writePin(hsm, 'wrong-pin')
  await hsm.misbehave('C_Login stall')
  {
    const opening = hsm.open(options)
    await until('the login', async () => (await hsm.calls('C_Login')) === 1)
    await writePin(hsm, hsm.token.pin)
    await hsm.misbehave('')
    await using manager = await opening
    assert.equal(manager.status().state, 'refused')
  }
  await using manager = await hsm.open(options)
  assert.equal(manager.status().state, 'ok')
})

test('a note that cannot be read, or is about another token, keeps no PIN from being sent', async () => {
  await using hsm = await newFaultyHsm()
  const refusalFile = join(hsm.token.directory, 'hsm-pin-refused')
  for (const note of ['', '{', 'null', '{"pin":1}', '{"pin":"[]","detail":"x"}', ' '.repeat(1e5)]) {
    await writeFile(refusalFile, note)
    await using manager = await hsm.open({ refusalFile })
    assert.equal(manager.status().state, 'ok', note.slice(0, 20))
  }
})

test('a PIN in a systemd credential that was refused waits for an operator, whatever its file', async () => {
  await using hsm = await newFaultyHsm()
  const refusals = new PinRefusals(join(hsm.token.directory, 'note'), new SystemRandom())
  const pin = { module: '/m', tokenLabel: 'assay', pinFile: '/run/credentials/x/hsm-pin' }
  await refusals.keep({ ...pin, version: '', pinIsCredential: true }, 'CKR_PIN_INCORRECT')
  const elsewhere = { ...pin, pinFile: '/run/credentials/y/hsm-pin', pinIsCredential: true }
  assert.equal(await refusals.find(elsewhere), 'CKR_PIN_INCORRECT')
  assert.equal(await refusals.find({ ...elsewhere, tokenLabel: 'other' }), undefined)
  assert.equal(await refusals.find({ ...elsewhere, module: '/other' }), undefined)
})

test('a module that dies while the PIN is being sent gets it twice, then no more', async () => {
  await using hsm = await newFaultyHsm()
  await hsm.misbehave('C_Login abort')
  await using manager = await hsm.open()
  await until('refused', () => manager.status().state === 'refused')
  assert.match(manager.status().detail, /while the PIN was being sent/)
  assert.equal(await hsm.calls('C_Login'), 2)
  await hsm.misbehave('')
  await manager.resume()
  assert.equal(manager.status().state, 'ok')
})

test('a token that is away at the start is found when it comes', async () => {
  await using hsm = await newFaultyHsm()
  await hsm.token.unplug()
  await using manager = await hsm.open()
  assert.equal(manager.status().state, 'down')
  assert.match(manager.status().where, /token "assay"$/)
  await hsm.token.plug()
  const backMs = await until('ok', () => manager.status().state === 'ok')
  assert.ok(backMs <= 2000, `found after ${backMs} ms`)
  await manager.generateKey('k', 'ec-p256')
})

test('a PIN that became wrong is sent once, until an operator resumes', async () => {
  await using hsm = await newFaultyHsm()
  const clock = new FakeClock()
  await using manager = await hsm.open({ clock })
  const key = await manager.generateKey('k', 'ec-p256')
  await writePin(hsm, 'wrong-pin')
  const before = await hsm.calls('C_Login')
  await loseToken(hsm, key)
  await until('refused', () => manager.status().state === 'refused')
  assert.equal(await hsm.calls('C_Login'), before + 1)

  for (let i = 0; i < 20; i++) await clock.advance(minutes(3))
  await assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
  assert.equal(await hsm.calls('C_Login'), before + 1, 'nothing tries again, however long it takes')
  await until('the end of the process', () => manager.signerPid === undefined)

  await assert.rejects(manager.resume(), { code: 'failed-precondition', reason: 'hsm-pin-refused' })
  assert.equal(await hsm.calls('C_Login'), before + 2)
  assert.equal(manager.status().state, 'refused')

  await writePin(hsm, hsm.token.pin)
  await manager.resume()
  assert.equal(manager.status().state, 'ok')
  await key.sign(Uint8Array.of(1))
  assert.equal(await hsm.calls('C_Login'), before + 3)
  await manager.resume()
  assert.equal(await hsm.calls('C_Login'), before + 3, 'resume() without need does nothing')
})

for (const [name, flag] of [
  ['is locked', '0x40000'],
  ['has one try left', '0x20000'],
] as const) {
  test(`the PIN is not sent to a token whose PIN ${name}`, async () => {
    await using hsm = await newFaultyHsm()
    await hsm.misbehave(`C_GetTokenInfo flags ${flag}`)
    const refusalFile = join(hsm.token.directory, 'hsm-pin-refused')
    await using manager = await hsm.open({ refusalFile })
    assert.equal(manager.status().state, 'refused')
    assert.equal(await hsm.calls('C_Login'), 0)
    await assert.rejects(stat(refusalFile), { code: 'ENOENT' }, 'the token itself remembers that')
  })
}

test('resume() spends the last try, once', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  const before = await hsm.calls('C_Login')
  await hsm.misbehave('C_Sign error 0x32')
  await assert.rejects(key.sign(Uint8Array.of(1)))
  await hsm.misbehave('C_GetTokenInfo flags 0x20000')
  await until('refused', () => manager.status().state === 'refused')
  assert.equal(await hsm.calls('C_Login'), before)
  await manager.resume()
  assert.equal(await hsm.calls('C_Login'), before + 1)
  await key.sign(Uint8Array.of(1))
})

test('a login that fails for no clear reason is tried twice, then no more', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  const before = await hsm.calls('C_Login')
  await hsm.misbehave('C_Sign error 0x32')
  await assert.rejects(key.sign(Uint8Array.of(1)))
  await hsm.misbehave('C_Login error 0x05')
  await until('refused', () => manager.status().state === 'refused')
  assert.equal(await hsm.calls('C_Login'), before + 2)
})

test('a PIN file is refused that others may read, that is empty, missing or no file', async () => {
  await using hsm = await newFaultyHsm()
  const { pinFile } = hsm.token
  const refused = (why: RegExp) =>
    assert.rejects(hsm.open(), (error: Error & { code: string }) => {
      assert.equal(error.code, 'failed-precondition')
      assert.ok(error.message.includes(pinFile))
      assert.match(error.message, why)
      return true
    })
  await chmod(pinFile, 0o440)
  await refused(/mode 0440 lets others read it; run chmod 0400/)
  await writePin(hsm, '\n')
  await refused(/it is empty/)
  await writePin(hsm, 'x'.repeat(256))
  await refused(/longer than 255 bytes/)
  await rm(pinFile)
  await refused(/ENOENT/)
  await hsm.token.unplug()
  await refused(/ENOENT/)
  assert.equal(await hsm.calls('C_Login'), 0)
})

test('a PIN file may end its line', async () => {
  await using hsm = await newFaultyHsm()
  for (const end of ['\n', '\r\n']) {
    await writePin(hsm, hsm.token.pin + end)
    await using manager = await hsm.open()
    assert.equal(manager.status().state, 'ok')
  }
})
