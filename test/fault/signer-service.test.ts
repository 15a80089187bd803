// The signer as a service of its own, which the server reaches over a socket and cannot kill: what the other files here
// show of a signer that the server starts, as far as the socket can make a difference.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import process from 'node:process'
import { test } from 'node:test'
import { SystemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { HsmClient } from '#hsm/client.ts'
import { FrameReader, FrameWriter } from '#hsm/frame.ts'
import { labelPrefixOf } from '#hsm/label-prefix.ts'
import {
  encodeMessage,
  encodeSealRequest,
  frameKind,
  type OpenRequest,
  parseSignerEvent,
} from '#hsm/protocol.ts'
import { ownSigner } from '#hsm/signer-command.ts'
import type { SignerStart } from '#hsm/signer-link.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { type FaultyHsm, newFaultyHsm } from '../support/faulty-hsm.ts'
import { type SignerService, startSignerService } from '../support/signer-service.ts'
import { SigningLoad, until } from '../support/signing-load.ts'

/** A token, and a service that may open it. */
async function newServed(pinFile?: string): Promise<{
  readonly hsm: FaultyHsm
  readonly service: SignerService
  readonly [Symbol.asyncDispose]: () => Promise<void>
}> {
  const hsm = await newFaultyHsm()
  const { token, module, environment } = hsm
  const service = await startSignerService({
    directory: token.directory,
    environment,
    token: `module: ${module}, token_label: ${token.tokenLabel}, pin_file: ${pinFile ?? token.pinFile}`,
  })
  const dispose = async () => {
    await service[Symbol.asyncDispose]()
    await hsm[Symbol.asyncDispose]()
  }
  return { hsm, service, [Symbol.asyncDispose]: dispose }
}

const labelPrefix = labelPrefixOf(parseTrustDomain('example.org'))

const signTimeout = Temporal.Duration.from({ seconds: 1 })
const isGone = (pid: number) => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

test('a signer behind a socket signs, is replaced when it dies, and ends with its server', async () => {
  await using served = await newServed()
  const { hsm, service } = served
  const signerSocketPath = service.socketPath
  const server = await hsm.open({ signerSocketPath, pinFile: undefined })
  const key = await server.generateKey('k', 'ec-p256')
  assert.equal(server.signerPid, undefined, 'it is not ours')
  const [first = 0, ...others] = service.pids()
  assert.deepEqual(others, [])
  await using load = new SigningLoad(key)
  await until('load', () => load.result.signed > 200)
  process.kill(first, 'SIGKILL')
  const noticedMs = await until('down', () => server.status().state === 'down')
  assert.ok(noticedMs <= 200, `noticed after ${noticedMs} ms`)
  assert.match(server.status().detail, /the signer at .*signer\.sock ended: journalctl/)
  const { signed } = load.result
  await until('signatures', () => load.result.signed > signed)
  assert.equal(server.status().state, 'ok')
  assert.equal(load.result.wrong, 0)
  const [second = 0] = service.pids()
  assert.notEqual(second, first)
  await load[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
  await until('its end', () => isGone(second))
})

for (const hanging of ['C_Sign', 'C_SignInit'])
  test(`a signer that nobody can kill ends by itself when it hangs in ${hanging} and was left`, async (t) => {
    await using served = await newServed()
    const { hsm, service } = served
    await using server = await hsm.open({ signTimeout, signerSocketPath: service.socketPath })
    const key = await server.generateKey('k', 'ec-p256')
    const [hung = 0] = service.pids()
    await using load = new SigningLoad(key)
    await until('load', () => load.result.signed > 200)
    await hsm.misbehave(`${hanging} hang`)
    const noticedMs = await until('down', () => server.status().state === 'down')
    assert.ok(noticedMs <= 1000, `noticed after ${noticedMs} ms`)
    await hsm.misbehave('')
    const { signed } = load.result
    const backMs = await until('signatures', () => load.result.signed > signed)
    const goneMs = await until('the end of the old one', () => isGone(hung))
    t.diagnostic(
      `noticed ${noticedMs.toFixed()} ms, back ${backMs.toFixed()} ms, gone ${goneMs.toFixed()} ms later`,
    )
    assert.equal(service.pids().length, 1)
    assert.equal(load.result.wrong, 0)
  })

test('a signer that hangs ends when its server lets go of it', async () => {
  await using served = await newServed()
  const { hsm, service } = served
  const server = await hsm.open({ signerSocketPath: service.socketPath })
  const key = await server.generateKey('k', 'ec-p256')
  const [pid = 0] = service.pids()
  await hsm.misbehave('C_SignInit hang')
  const signing = assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
  await until('the hang', async () => (await hsm.calls('C_SignInit')) > 1)
  await server[Symbol.asyncDispose]()
  await signing
  await until('its end', () => isGone(pid))
})

test('a token that vanishes behind a socket is noticed, and back by itself in the same signer', async () => {
  await using served = await newServed()
  const { hsm, service } = served
  await using server = await hsm.open({ signerSocketPath: service.socketPath })
  const key = await server.generateKey('k', 'ec-p256')
  const before = service.pids()
  await hsm.token.unplug()
  const noticedMs = await until('down', () => server.status().state === 'down')
  assert.ok(noticedMs <= 1000, `noticed after ${noticedMs} ms`)
  await hsm.token.plug()
  const backMs = await until('ok', () => server.status().state === 'ok')
  assert.ok(backMs <= 2000, `back after ${backMs} ms`)
  await key.sign(Uint8Array.of(1))
  assert.deepEqual(service.pids(), before)
})

test('a server gets nothing opened that is not in the configuration of the signer', async () => {
  await using served = await newServed()
  const { hsm, service } = served
  const signerSocketPath = service.socketPath
  // The library past the one that counts: it is there, and has the very token.
  await assert.rejects(hsm.openDirectly({ signerSocketPath }), {
    code: 'failed-precondition',
    message: /the signer's configuration has no such token "assay".*restart assay-server/,
  })
  await assert.rejects(hsm.open({ signerSocketPath, trustDomain: 'other.org' }), {
    code: 'failed-precondition',
    message: /no such token/,
  })
  // Where the PIN is, is not the server's to say.
  await using server = await hsm.open({ signerSocketPath, pinFile: '/etc/shadow' })
  assert.equal(server.status().state, 'ok')
  await writeFile(service.configFile, 'trust_domain: [')
  await assert.rejects(hsm.open({ signerSocketPath }), {
    code: 'failed-precondition',
    message: /assay-signer cannot use .*server\.yaml/,
  })
})

test('a server cannot destroy the key of the CA above it, nor make one, behind a socket', async () => {
  await using hsm = await newFaultyHsm()
  const { token, module, environment } = hsm
  const own = `module: ${module}, token_label: assay, pin_file: ${token.pinFile}`
  await using service = await startSignerService({
    ...{ directory: token.directory, environment },
    token: own,
    upstream: `${own}, cert_file_path: /nowhere, key_label: ca-1`,
  })
  const openAs = (labelPrefix: string, signer: SignerStart) =>
    HsmClient.open({
      signer,
      open: {
        ...{ module, tokenLabel: 'assay', tokenSerial: undefined, labelPrefix, sessions: 1 },
        ...{ pinFile: token.pinFile, pinIsCredential: false },
      },
      signLimitMs: 5000,
      keyProbeInterval: Temporal.Duration.from({ hours: 1 }),
      clock: new SystemClock(),
      monotonicMs: () => performance.now(),
      refusals: undefined,
      random: new SystemRandom(),
      log: silentLog,
    })
  // As a ceremony makes it.
  await using ceremony = await openAs('ca-1', { command: ownSigner(), environment })
  await ceremony.generateKey('ca-1', 'ec-p256')
  await ceremony.generateKey('ca-10', 'ec-p256')
  await using server = await openAs('ca-1', { socketPath: service.socketPath })
  const key = server.keys.get('ca-1')
  assert.ok(key !== undefined)
  assert.deepEqual([...server.keys.keys()], ['ca-1'], 'a key whose label goes on is another CA')
  await server.sign(key, Uint8Array.of(1))
  const refused = { code: 'invalid-argument', message: /sign, and nothing else/ }
  await assert.rejects(server.destroyKey('ca-1'), refused)
  await assert.rejects(server.generateKey('ca-11', 'ec-p256'), refused)
  await assert.rejects(
    server.seal('ca-1seal', { context: new Uint8Array(), data: Uint8Array.of(1) }),
    refused,
  )
  await server.sign(key, Uint8Array.of(2))
})

test('a PIN that is refused behind a socket is sent once, by however many signers', async () => {
  await using hsm = await newFaultyHsm()
  const wrong = `${hsm.token.directory}/wrong`
  await writeFile(wrong, '000000', { mode: 0o400 })
  await using service = await startSignerService({
    directory: hsm.token.directory,
    environment: hsm.environment,
    token: `module: ${hsm.module}, token_label: ${hsm.token.tokenLabel}, pin_file: ${wrong}`,
  })
  const refusalFile = `${hsm.token.directory}/refused`
  const options = { signerSocketPath: service.socketPath, pinFile: undefined, refusalFile }
  for (let start = 0; start < 2; start++) {
    await using server = await hsm.open(options)
    assert.equal(server.status().state, 'refused')
  }
  assert.equal(await hsm.calls('C_Login'), 1)
})

test('a signer that dies twice while the PIN is sent is not given it a third time', async () => {
  await using served = await newServed()
  const { hsm, service } = served
  await hsm.misbehave('C_Login abort')
  await using server = await hsm.open({ signerSocketPath: service.socketPath })
  await until('refused', () => server.status().state === 'refused')
  assert.equal(await hsm.calls('C_Login'), 2)
})

test('a socket that nobody listens at is waited for', async () => {
  await using hsm = await newFaultyHsm()
  const { directory, tokenLabel, pinFile } = hsm.token
  await using server = await hsm.open({ signerSocketPath: `${directory}/signer.sock` })
  assert.equal(server.status().state, 'down')
  assert.match(
    server.status().detail,
    /cannot reach the signer: connect ENOENT .*signer\.sock; see systemctl status assay-signer\.socket/,
  )
  await using _service = await startSignerService({
    directory,
    environment: hsm.environment,
    token: `module: ${hsm.module}, token_label: ${tokenLabel}, pin_file: ${pinFile}`,
  })
  await until('ok', () => server.status().state === 'ok')
})

/** A server that was taken over: it says what it likes. */
async function attack({
  hsm,
  service,
}: {
  readonly hsm: FaultyHsm
  readonly service: SignerService
}) {
  const socket = connect(service.socketPath)
  const frames = new FrameWriter((bytes) => socket.write(bytes))
  const reader = new FrameReader()
  const state = { isReady: false, answers: 0 }
  socket.on('data', (chunk: Uint8Array) => {
    for (const { kind, body } of reader.read(chunk)) {
      if (kind !== frameKind.event) state.answers += 1
      else state.isReady ||= parseSignerEvent(body).state === 'ready'
    }
  })
  const { module, token } = hsm
  const open: OpenRequest = {
    ...{ module, tokenLabel: token.tokenLabel, tokenSerial: undefined, sessions: 4 },
    ...{ pinFile: '', pinIsCredential: false, spendFinalTry: false, labelPrefix },
  }
  frames.send(frameKind.open, 0, encodeMessage(open))
  await until('ready', () => state.isReady)
  return {
    ...{ frames, socket, state, pid: service.pids()[0] ?? 0 },
    [Symbol.dispose]: () => void socket.destroy(),
  }
}

/** Resolves once it has been the same for a third of a second. */
async function settled(value: () => unknown): Promise<void> {
  let last: unknown
  let looks = 0
  await until('rest', () => {
    const now = value()
    looks = now === last ? looks + 1 : 0
    last = now
    return looks > 60
  })
}

/** The time that a process has used. */
const processTime = (pid: number): string =>
  readFileSync(`/proc/${pid}/stat`, 'latin1').split(' ').slice(13, 15).join()

test('a signer does not read a server that does not read, and answers once it does', async () => {
  await using served = await newServed()
  using server = await attack(served)
  server.socket.pause()
  const asked = 100_000
  for (let id = 0; id < asked; id++) server.frames.send(99, id)
  await settled(() => processTime(server.pid))
  assert.ok(server.socket.writableLength > 0, 'all answers are in its memory')
  server.socket.resume()
  await until('all answers', () => server.state.answers === asked)
})

test('a signer does not read more requests than it could keep', async () => {
  await using served = await newServed()
  using server = await attack(served)
  const generate = (id: number): void =>
    server.frames.send(
      frameKind.generate,
      id,
      encodeMessage({ label: `${labelPrefix}${id}`, type: 'rsa-3072' }),
    )
  for (let id = 0; id < 12; id++) generate(id)
  const label = labelPrefix
  const large = encodeSealRequest({
    label,
    context: new Uint8Array(700_000),
    data: new Uint8Array(),
  })
  for (let id = 0; id < 16; id++) server.frames.send(frameKind.seal, id, large)
  await settled(() => server.socket.writableLength)
  assert.ok(server.socket.writableLength > 0, 'all requests are in its memory')
})
