import assert from 'node:assert/strict'
import { chmod, rm, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
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

test('openPkcs11KeyManager() sends a wrong PIN once, and says what must not be tried again', async () => {
  await using hsm = await newFaultyHsm()
  await writePin(hsm, 'wrong-pin')
  await assert.rejects(hsm.open(), (error: Error & { code: string; reason: string }) => {
    assert.equal(error.code, 'failed-precondition')
    assert.equal(error.reason, 'hsm-pin-refused')
    assert.match(error.message, /CKR_PIN_INCORRECT/)
    assert.doesNotMatch(error.message, /wrong-pin/)
    return true
  })
  assert.equal(await hsm.calls('C_Login'), 1)
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
    await assert.rejects(hsm.open(), { reason: 'hsm-pin-refused' })
    assert.equal(await hsm.calls('C_Login'), 0)
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
    assert.rejects(hsm.open(), (error: Error) => {
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
