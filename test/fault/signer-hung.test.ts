import assert from 'node:assert/strict'
import { performance } from 'node:perf_hooks'
import process from 'node:process'
import { type TestContext, test } from 'node:test'
import type { Pkcs11KeyManager } from '#server/plugin/key-manager/pkcs11.ts'
import { type FaultyHsm, newFaultyHsm } from '../support/faulty-hsm.ts'
import { EventLoopWatch, SigningLoad, until } from '../support/signing-load.ts'

const signTimeout = Temporal.Duration.from({ seconds: 1 })

interface Scene {
  readonly hsm: FaultyHsm
  readonly manager: Pkcs11KeyManager
  readonly load: SigningLoad
}

/**
 * Signs under load, breaks the signer, and expects: down within a second, signatures again within two seconds
 * after the signer was replaced, and an event loop that never stood still.
 */
async function survive(
  t: TestContext,
  fault: { readonly strike: (scene: Scene) => Promise<unknown>; readonly noticedWithinMs: number },
): Promise<void> {
  await using hsm = await newFaultyHsm()
  const startedAt = performance.now()
  await using manager = await hsm.open({ signTimeout })
  // Two seconds, or on a machine that is busy otherwise what three starts and the wait between them take.
  const backLimitMs = Math.max(2000, 750 + 3 * (performance.now() - startedAt))
  const key = await manager.generateKey('k', 'ec-p256')
  const { signerPid } = manager
  using eventLoop = new EventLoopWatch()
  await using load = new SigningLoad(key)
  await until('load', () => load.result.signed > 200)

  await fault.strike({ hsm, manager, load })
  const noticedMs = await until('down', () => manager.status().state === 'down')
  await hsm.misbehave('')
  // What hangs for ever is replaced when the time for one signature is over.
  await until('the end of the old signer', () => manager.signerPid !== signerPid)
  const { signed } = load.result
  const backMs = await until('signatures', () => load.result.signed > signed)

  t.diagnostic(
    `noticed ${noticedMs.toFixed()} ms, back ${backMs.toFixed()} ms, gap ${eventLoop.longestMs.toFixed()} ms`,
  )
  assert.ok(noticedMs <= fault.noticedWithinMs, `noticed after ${noticedMs} ms`)
  assert.ok(backMs <= backLimitMs, `back after ${backMs} ms`)
  assert.notEqual(manager.signerPid, signerPid)
  assert.equal(manager.status().state, 'ok')
  assert.equal(load.result.wrong, 0)
  assert.ok(eventLoop.longestMs < 100, `event loop stood still for ${eventLoop.longestMs} ms`)
}

const withinASecond = 1000

test('a signer that is killed is replaced', (t) =>
  survive(t, {
    strike: async ({ manager }) => process.kill(Number(manager.signerPid), 'SIGKILL'),
    noticedWithinMs: 200,
  }))

test('a signer that is stopped is replaced', (t) =>
  survive(t, {
    strike: async ({ manager }) => process.kill(Number(manager.signerPid), 'SIGSTOP'),
    noticedWithinMs: withinASecond,
  }))

test('a module that aborts the process takes only the signer with it', (t) =>
  survive(t, {
    strike: ({ hsm }) => hsm.misbehave('C_Sign abort'),
    noticedWithinMs: 500,
  }))

test('a module that hangs in one signature is replaced with its process', (t) =>
  survive(t, {
    strike: ({ hsm }) => hsm.misbehave('C_Sign hang'),
    noticedWithinMs: withinASecond,
  }))

test('a module that hangs where the signer’s own event loop hangs with it is replaced too', (t) =>
  survive(t, {
    strike: ({ hsm }) => hsm.misbehave('C_SignInit hang'),
    noticedWithinMs: withinASecond,
  }))

test('a module that takes five seconds a signature is given up', (t) =>
  survive(t, {
    strike: ({ hsm }) => hsm.misbehave('C_Sign delay 5000'),
    noticedWithinMs: withinASecond,
  }))

test('a module that hangs is down within a second, fails fast, and is ok again with its next answer', async (t) => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  const { signerPid } = manager
  await using load = new SigningLoad(key)
  await until('load', () => load.result.signed > 200)
  for (const hanging of ['C_Sign', 'C_SignInit', 'C_GetTokenInfo']) {
    await hsm.misbehave(`${hanging} stall`)
    // The shim hangs for whoever asks next: nobody asks for the token while there are signatures.
    if (hanging === 'C_GetTokenInfo') await load[Symbol.asyncDispose]()
    const noticedMs = await until('down', () => manager.status().state === 'down')
    assert.ok(noticedMs <= withinASecond, `${hanging}: noticed after ${noticedMs} ms`)
    assert.match(manager.status().detail, /does not (answer|sign)/)
    const startedAt = performance.now()
    await assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
    assert.ok(performance.now() - startedAt <= 50, 'fails fast')
    await hsm.misbehave('')
    const backMs = await until('ok', () => manager.status().state === 'ok')
    assert.ok(backMs <= 2000, `${hanging}: back after ${backMs} ms`)
    await key.sign(Uint8Array.of(1))
    t.diagnostic(`${hanging}: noticed ${noticedMs.toFixed()} ms, back ${backMs.toFixed()} ms`)
  }
  assert.equal(manager.signerPid, signerPid, 'nothing was replaced')
  assert.equal(load.result.wrong, 0)
})

test('a signer that stands still while nobody signs is down within a second, and back in two', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  process.kill(Number(manager.signerPid), 'SIGSTOP')
  const noticedMs = await until('down', () => manager.status().state === 'down')
  assert.ok(noticedMs <= withinASecond, `noticed after ${noticedMs} ms`)
  process.kill(Number(manager.signerPid), 'SIGCONT')
  const backMs = await until('ok', () => manager.status().state === 'ok')
  assert.ok(backMs <= 2000, `back after ${backMs} ms`)
  await key.sign(Uint8Array.of(1))
})

for (const [delayMs, inFlight, limit] of [
  [25, 16, 64],
  [500, 1, 3],
  [500, 8, 12],
] as const) {
  test(`a module that takes ${delayMs} ms, asked by ${inFlight}, is slow and not hung`, async () => {
    await using hsm = await newFaultyHsm()
    await using manager = await hsm.open()
    const key = await manager.generateKey('k', 'ec-p256')
    await hsm.misbehave(`C_Sign delay ${delayMs}`)
    using _status = manager.onStatus(({ state, detail }) => assert.fail(`${state}: ${detail}`))
    await using load = new SigningLoad(key, { inFlight, limit })
    assert.equal((await load.ended()).signed, limit)
  })
}

test('a module that is slow, but not too slow, is waited for', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open({ signTimeout })
  const key = await manager.generateKey('k', 'ec-p256')
  await hsm.misbehave('C_Sign delay 200')
  using eventLoop = new EventLoopWatch()
  await using load = new SigningLoad(key, { inFlight: 8, limit: 24 })
  assert.deepEqual(
    { ...(await load.ended()), longestFailureMs: 0 },
    { signed: 24, failed: 0, wrong: 0, longestFailureMs: 0 },
  )
  assert.equal(manager.counters.processes, 1)
  assert.ok(eventLoop.longestMs < 100, `event loop stood still for ${eventLoop.longestMs} ms`)
})

test('more callers than a slow module can serve are refused, and the signer stays', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  await hsm.misbehave('C_Sign delay 500')
  const outcomes = await Promise.allSettled(
    Array.from({ length: 400 }, (_, index) => key.sign(Uint8Array.of(index % 256))),
  )
  const failures = outcomes.filter((outcome) => outcome.status === 'rejected')
  assert.ok(failures.length > 350, `${failures.length} refused`)
  for (const { reason } of failures) assert.match(String(reason), /hsm is overloaded/)
  assert.ok(failures.length < 400, 'some are served')
  assert.equal(manager.counters.processes, 1)
  assert.equal(manager.status().state, 'ok')
})

test('a module that hangs while the token is opened again is given up after ten seconds', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  await hsm.misbehave('C_Sign error 0x32')
  await assert.rejects(key.sign(Uint8Array.of(1)))
  await hsm.misbehave('C_Initialize hang')
  const { signerPid } = manager
  const goneMs = await until('end of the signer', () => manager.signerPid !== signerPid)
  assert.ok(goneMs < 12_000, `given up after ${goneMs} ms`)
  await hsm.misbehave('')
  await until('ok', () => manager.status().state === 'ok')
  await key.sign(Uint8Array.of(1))
})

test('a signer ends when its server does, in whatever state it is', async () => {
  await using hsm = await newFaultyHsm()
  {
    await using manager = await hsm.open()
    const pid = Number(manager.signerPid)
    await manager[Symbol.asyncDispose]()
    assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
  }
  await using manager = await hsm.open({ signTimeout: Temporal.Duration.from({ minutes: 1 }) })
  const key = await manager.generateKey('k', 'ec-p256')
  const pid = Number(manager.signerPid)
  await hsm.misbehave('C_SignInit hang')
  const signing = assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
  await until('the hang', async () => (await hsm.calls('C_SignInit')) > 1)
  await manager[Symbol.asyncDispose]()
  await signing
  assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
})
