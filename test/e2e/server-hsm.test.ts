import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { after, before, test } from 'node:test'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { LiveServer } from '../support/live-server.ts'
import { until } from '../support/signing-load.ts'
import { newSoftHsm, type SoftHsm } from '../support/softhsm.ts'

const program = new URL('../../bin/assay', import.meta.url).pathname
let token: SoftHsm
let directory = ''
before(async () => {
  token = await newSoftHsm()
  directory = await mkdtemp(join(tmpdir(), 'assay-server-'))
  process.env['SOFTHSM2_CONF'] = token.environment['SOFTHSM2_CONF']
})
after(async () => {
  await token[Symbol.asyncDispose]()
  await rm(directory, { recursive: true })
})

const start = (): Promise<LiveServer> => {
  const { module, tokenLabel, pinFile } = token
  const keyManager = `pkcs11: { module: ${module}, token_label: ${tokenLabel}, pin_file: ${pinFile} }`
  return LiveServer.start({ directory, keyManager })
}

async function readiness({ server }: LiveServer): Promise<{ status: number; body: string }> {
  const answer = await fetch(`http://127.0.0.1:${server.healthPort}/ready`)
  return { status: answer.status, body: await answer.text() }
}

const isReady = async (server: LiveServer): Promise<boolean> =>
  (await readiness(server)).status === 200

async function metric({ server }: LiveServer, name: string): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${server.metricsPort}/metrics`)
  const line = (await answer.text()).split('\n').find((text) => text.startsWith(`${name}{`))
  return Number(line?.split(' ')[1])
}

async function writePin(pin: string): Promise<void> {
  await rm(token.pinFile, { force: true })
  await writeFile(token.pinFile, pin, { mode: 0o400 })
}

/** The process that talks to the token: the one child this process has. */
async function signerPid(): Promise<number> {
  const children = await readFile(`/proc/self/task/${process.pid}/children`, 'utf8')
  return Number(children.trim().split(' ').at(-1))
}

test('a server whose token is away starts, is open to administration, and lets agents in when it comes', async () => {
  await token.unplug()
  await using server = await start()
  assert.equal(server.server.port, undefined)
  const { status, body } = await readiness(server)
  assert.equal(status, 503)
  assert.match(body, /"key-manager":{"live":true,"ready":false,"detail":"down: /)
  const keys = server.local.client(KeysDefinition)
  assert.equal((await keys.getStatus({})).state, 'down')
  assert.equal(await metric(server, 'assay_hsm_up'), 0)

  await token.plug()
  await until('ready', () => isReady(server), 5000)
  await server.attest()
  assert.equal((await keys.getStatus({})).state, 'ok')
  assert.equal(await metric(server, 'assay_hsm_up'), 1)
  assert.ok((await metric(server, 'assay_hsm_signatures_total')) > 0)
  assert.ok((await metric(server, 'assay_hsm_signature_duration_seconds_count')) > 0)
})

test('a server whose PIN is refused starts, tries it once over restarts, and works after assay hsm resume', async () => {
  await writePin('wrong')
  for (let i = 0; i < 2; i++) {
    await using server = await start()
    assert.equal(server.server.port, undefined)
    assert.match((await readiness(server)).body, /refused: .*CKR_PIN_INCORRECT/)
  }
  await using server = await start()
  const keys = server.local.client(KeysDefinition)
  assert.equal((await keys.getStatus({})).state, 'refused')
  await writePin(token.pin)
  assert.equal((await keys.resume({})).state, 'ok')
  await until('ready', () => isReady(server), 5000)
  await server.attest()
})

test('a server whose signer stands still is not ready within a second, and ready again by itself', async () => {
  await using server = await start()
  await until('ready', () => isReady(server), 5000)
  const pid = await signerPid()
  process.kill(pid, 'SIGSTOP')
  const noticedMs = await until('not ready', async () => !(await isReady(server)), 5000)
  assert.ok(noticedMs <= 1000, `noticed after ${noticedMs} ms`)
  assert.match((await readiness(server)).body, /down: it does not answer/)
  assert.equal(await metric(server, 'assay_hsm_up'), 0)
  assert.ok(server.lines.some((line) => /hsm is down/.test(line)))
  process.kill(pid, 'SIGCONT')
  const backMs = await until('ready', () => isReady(server), 5000)
  assert.ok(backMs <= 2000, `back after ${backMs} ms`)
})

test('a server with a second token has a successor on it, in the bundle, and counts both tokens', async () => {
  await token.addToken('assay-2')
  const { module, pinFile } = token
  const keyManager = `pkcs11: {
    module: ${module}, token_label: assay, pin_file: ${pinFile},
    standby: { module: ${module}, token_label: assay-2, pin_file: ${pinFile} } }`
  const fresh = await mkdtemp(join(tmpdir(), 'assay-server-'))
  const server = await LiveServer.start({ directory: fresh, keyManager })
  try {
    await until('ready', () => isReady(server), 5000)
    const keys = server.local.client(KeysDefinition)
    // A round that is due every ten seconds, or when something happens.
    await until(
      'a successor',
      async () => {
        const status = await keys.getStatus({})
        return status.keys.filter(({ state }) => state === 'prepared').length === 2
      },
      15_000,
    )
    const { x509Authorities } = await server.local.client(BundleDefinition).getBundle({})
    assert.equal(x509Authorities.length, 2)
    const { keys: listed } = await keys.getStatus({})
    for (const { state, where, away } of listed) {
      if (state === '') continue // left by the servers of other tests
      assert.match(where, state === 'active' ? /token "assay" / : /token "assay-2" /)
      assert.equal(away, false)
    }
    assert.match((await keys.getStatus({})).where, /token "assay" .*token "assay-2" /)
    const answer = await fetch(`http://127.0.0.1:${server.server.metricsPort}/metrics`)
    const text = await answer.text()
    for (const name of ['assay', 'assay-2']) {
      assert.match(text, new RegExp(`^assay_hsm_up\\{token="${name}"\\} 1$`, 'm'))
    }
  } finally {
    await server[Symbol.asyncDispose]()
    await rm(fresh, { recursive: true })
  }
})

test('assay hsm rotate says what it goes on with, and what to do while the token is away', async () => {
  await writePin(token.pin)
  const fresh = await mkdtemp(join(tmpdir(), 'assay-server-'))
  const { module, tokenLabel, pinFile } = token
  const keyManager = `pkcs11: { module: ${module}, token_label: ${tokenLabel}, pin_file: ${pinFile} }`
  const server = await LiveServer.start({ directory: fresh, keyManager })
  /** Runs the command until it has said that, then interrupts it. */
  const rotateUntil = async (said: RegExp, ...options: string[]): Promise<string> => {
    const socket = ['--socket-path', join(fresh, 'server.sock')]
    const child = spawn(program, ['hsm', 'rotate', 'x509', ...options, ...socket])
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Uint8Array) => {
        text += new TextDecoder().decode(chunk)
        if (said.test(text)) child.kill('SIGINT')
      })
    }
    await once(child, 'close')
    return text
  }
  try {
    await until('ready', () => isReady(server), 5000)
    await rotateUntil(/waiting until/, '--retire', '--after', '1h')
    await token.unplug()
    await until('not ready', async () => !(await isReady(server)), 5000)
    const said = await rotateUntil(/trying again/, '--after', '0')
    assert.match(
      said,
      /^x509: goes on with the rotation begun at \S+ with --retire, and ends the old/m,
    )
    assert.match(said, /^x509: nothing goes on now, .*'assay hsm status' says how the keys are/m)
  } finally {
    await token.plug()
    await server[Symbol.asyncDispose]()
    await rm(fresh, { recursive: true })
  }
})
