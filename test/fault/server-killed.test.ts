// The server is killed again and again at random moments of rotations, under workloads at two agents that must not
// notice (R2). The whole figure is two hours of it: scripts/full-figures.
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import process from 'node:process'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { expectEvent, goClient, run } from '../conformance/clients.ts'
import { Installation } from '../support/installation.ts'

const kills = Number(process.env['ASSAY_FAULT_KILLS'] ?? 4)
const longestPauseMs = Number(process.env['ASSAY_FAULT_PAUSE_MS'] ?? 2500)
const go = goClient()
const uid = process.getuid?.() ?? 0

interface Key {
  readonly id: string
  readonly purpose: string
  readonly state: string
  readonly present: boolean
}

/** Exactly one authority of a kind signs, at most two have keys, and no key is nobody's. */
async function checkKeys(assay: Installation): Promise<void> {
  const { keys } = (await assay.ask('hsm', 'status')) as { keys: readonly Key[] }
  for (const kind of ['x509-ca', 'jwt']) {
    const own = keys.filter(({ purpose }) => purpose === kind)
    assert.equal(own.filter(({ state }) => state === 'active').length, 1, JSON.stringify(keys))
    assert.ok(own.filter(({ present }) => present).length <= 2, JSON.stringify(keys))
  }
  assert.deepEqual(
    keys.filter(({ purpose }) => purpose === ''),
    [],
    'orphans',
  )
}

test(`${kills} times killed during rotations: it serves again in 5 s, and nobody notices (R2)`, {
  skip: go.missing ?? false,
}, async () => {
  await using assay = new Installation()
  await assay.makeToken()
  let server = await assay.startServer(
    'pkcs11',
    'replacement_spread: 0s\nratelimit: { attestation: false }\n',
  )
  for (const node of ['one', 'two']) {
    const { token } = (await assay.ask('token', 'generate')) as { token: string }
    await assay.startAgent(`join_token: { token: ${token} }`, { node })
    const parent = assay.id(`/spire/agent/join_token/${token}`)
    await assay.createEntry(parent, assay.id(`/${node}`), `unix:uid:${uid}`)
  }
  const sockets = ['one', 'two'].map((node) => assay.workloadSocketOf(node))
  const stop = new AbortController()
  const workloads = run(go, ['load', ...sockets, assay.trustDomain], { signal: stop.signal })
  await expectEvent(workloads, 'running')
  const told = Array.fromAsync(workloads)

  const over = new AbortController()
  /** Each call goes on over every restart, as an operator's would. */
  const rotateForEver = async (...args: readonly string[]): Promise<number> => {
    let done = 0
    while (!over.signal.aborted) {
      const finished = await assay.tryAssay('hsm', 'rotate', ...args, ...assay.atServer())
      if (finished.status === 0) done++
      else assert.match(finished.stderr, /not running|is assay-server running/, finished.stderr)
    }
    return done
  }
  const rotating = Promise.all([rotateForEver('x509', '--retire'), rotateForEver('jwt')])
  rotating.catch(() => {})
  try {
    for (let i = 0; i < kills; i++) {
      await pause(randomInt(200, longestPauseMs))
      await server.kill()
      const startMs = performance.now()
      server = await assay.startServerAgain()
      const tookMs = performance.now() - startMs
      assert.ok(tookMs < 5000, `it served again after ${Math.round(tookMs)} ms`)
      await checkKeys(assay)
    }
  } catch (error) {
    stop.abort()
    throw error
  } finally {
    over.abort()
    await rotating.catch(() => stop.abort())
  }
  const [x509, jwt] = await rotating.finally(() => stop.abort())
  assert.ok(x509 > 0 && jwt > 0, `rotations came to their end: ${x509} of X.509, ${jwt} of JWT`)
  await checkKeys(assay)
  const events = await told
  assert.deepEqual(
    events.filter(({ event }) => event !== 'summary'),
    [],
  )
  assert.ok(Number(events.at(-1)?.['handshakes']) > 100)
})
