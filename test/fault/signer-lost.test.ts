import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newFaultyHsm } from '../support/faulty-hsm.ts'
import { EventLoopWatch, SigningLoad, until } from '../support/signing-load.ts'

const removed = '0x32' // CKR_DEVICE_REMOVED

test('a token that vanishes under load is noticed, fails fast, and is back by itself', async (t) => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  const { signerPid } = manager
  using eventLoop = new EventLoopWatch()
  await using load = new SigningLoad(key)
  await until('load', () => load.result.signed > 200)

  for (let round = 0; round < 3; round++) {
    await hsm.token.unplug()
    const noticedMs = await until('down', () => manager.status().state === 'down')
    assert.ok(noticedMs <= 1000, `noticed after ${noticedMs} ms`)
    load.result.longestFailureMs = 0
    const failedBefore = load.result.failed
    await until('failures', () => load.result.failed > failedBefore + 100)
    assert.ok(load.result.longestFailureMs <= 50, `failed after ${load.result.longestFailureMs} ms`)

    await hsm.token.plug()
    const signedBefore = load.result.signed
    const backMs = await until('signatures', () => load.result.signed > signedBefore)
    assert.ok(backMs <= 2000, `back after ${backMs} ms`)
    assert.equal(manager.status().state, 'ok')
    t.diagnostic(`noticed ${noticedMs.toFixed()} ms, back ${backMs.toFixed()} ms`)
  }
  assert.equal(manager.key('k'), key)
  assert.equal(manager.signerPid, signerPid, 'the module was opened again in the same process')
  assert.equal(load.result.wrong, 0)
  assert.ok(eventLoop.longestMs < 100, `event loop stood still for ${eventLoop.longestMs} ms`)
})

for (const [name, code] of Object.entries({
  CKR_GENERAL_ERROR: '0x05',
  CKR_FUNCTION_FAILED: '0x06',
  CKR_DEVICE_ERROR: '0x30',
  CKR_DEVICE_REMOVED: removed,
  CKR_KEY_HANDLE_INVALID: '0x60',
  CKR_SESSION_CLOSED: '0xb0',
  CKR_SESSION_HANDLE_INVALID: '0xb3',
  CKR_OPERATION_ACTIVE: '0x90',
  CKR_TOKEN_NOT_PRESENT: '0xe0',
  CKR_USER_NOT_LOGGED_IN: '0x101',
  'a vendor’s own code': '0x80000042',
})) {
  test(`${name} at C_Sign opens the token again`, async () => {
    await using hsm = await newFaultyHsm()
    await using manager = await hsm.open()
    const key = await manager.generateKey('k', 'ec-p256')
    await hsm.misbehave(`C_Sign error ${code}`)
    await assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
    assert.equal(manager.status().state, 'down')
    await hsm.misbehave('')
    await until('ok', () => manager.status().state === 'ok')
    await key.sign(Uint8Array.of(1))
    assert.equal(manager.counters.processes, 1)
    assert.equal(manager.counters.recoveries, 1)
  })
}

test('an error of one request costs that request only', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  await hsm.misbehave('C_Sign error 0x21') // CKR_DATA_LEN_RANGE
  for (let i = 0; i < 8; i++)
    await assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
  await hsm.misbehave('')
  // Each of the four sessions was left in the middle of an operation, and is a new one now.
  for (let i = 0; i < 8; i++) await key.sign(Uint8Array.of(1))
  assert.equal(manager.counters.recoveries, 0)
})

test('a token that vanishes while nobody signs is noticed within a second, and back in two', async (t) => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  await hsm.token.unplug()
  const noticedMs = await until('down', () => manager.status().state === 'down')
  assert.ok(noticedMs <= 1000, `noticed after ${noticedMs} ms`)
  await hsm.token.plug()
  const backMs = await until('ok', () => manager.status().state === 'ok')
  assert.ok(backMs <= 2000, `back after ${backMs} ms`)
  t.diagnostic(`noticed ${noticedMs.toFixed()} ms, back ${backMs.toFixed()} ms`)
  await key.sign(Uint8Array.of(1))
})

for (const [call, code] of [
  ['C_GetTokenInfo', removed],
  ['C_GetSessionInfo', '0xb3'], // CKR_SESSION_HANDLE_INVALID
] as const) {
  test(`a token that loses its sessions while nobody signs (${call}) is opened again`, async () => {
    await using hsm = await newFaultyHsm()
    await using manager = await hsm.open()
    await manager.generateKey('k', 'ec-p256')
    await hsm.misbehave(`${call} error ${code}`)
    const noticedMs = await until('down', () => manager.status().state === 'down')
    assert.ok(noticedMs <= 1000, `noticed after ${noticedMs} ms`)
    await hsm.misbehave('')
    const backMs = await until('ok', () => manager.status().state === 'ok')
    assert.ok(backMs <= 2000, `back after ${backMs} ms`)
    assert.ok(manager.counters.recoveries > 0)
  })
}

test('another token in the place of ours is not signed with', async () => {
  await using hsm = await newFaultyHsm()
  await using other = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  await using foreign = await other.open()
  await foreign.generateKey('k', 'ec-p256')
  await hsm.token.unplug()
  await until('down', async () => {
    await key.sign(Uint8Array.of(1)).catch(() => undefined)
    return manager.status().state === 'down'
  })
  // The same label, PIN and key names, but other keys: a standby partition, say.
  await hsm.token.plugCopyOf(other.token)
  await until('the other token', () => /has another key of that name/.test(manager.status().detail))
  assert.equal(manager.status().state, 'down')
  await assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
})

for (const call of ['C_OpenSession', 'C_GenerateKeyPair', 'C_CopyObject', 'C_SignInit']) {
  test(`generateKey() fails when the token goes at ${call}, and works once it is back`, async () => {
    await using hsm = await newFaultyHsm()
    await using manager = await hsm.open()
    await hsm.misbehave(`${call} error ${removed}`)
    await assert.rejects(manager.generateKey('k', 'ec-p256'), { code: 'unavailable' })
    assert.equal(manager.status().state, 'down')
    await hsm.misbehave('')
    await until('ok', () => manager.status().state === 'ok')
    const key = manager.key('k') ?? (await manager.generateKey('k', 'ec-p256'))
    await key.sign(Uint8Array.of(1))
  })
}
