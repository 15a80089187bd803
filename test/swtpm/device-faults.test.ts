import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createTpmNodeAttestor as createAgentAttestor } from '#agent/plugin/node-attestor/tpm.ts'
import { utf8Bytes } from '#base/bytes.ts'
import { SystemClock } from '#base/clock.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { createTpmNodeAttestor as createServerAttestor } from '#server/plugin/node-attestor/tpm.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { createAttestationKey, loadEndorsementKey } from '#tpm/device/endorsement.ts'
import { type Swtpm, startSwtpm, startTestTpm, testTpmAuthorities } from '../support/swtpm.ts'
import {
  clear,
  createOwnerKey,
  loadedHandles,
  openTpm,
  repeat,
  setEndorsementPassword,
  startSession,
} from '../support/tpm-commands.ts'
import {
  agentExchange,
  attest,
  MemoryTpmInventory,
  outcomeOf,
  serverExchange,
} from '../support/tpm-exchange.ts'

const trustDomain = parseTrustDomain('example.org')
const clock = new SystemClock()
const environment = { clock, random: new SystemRandom(), log: silentLog, trustDomain }
const never = new AbortController().signal
const soon = Temporal.Duration.from({ milliseconds: 1 })

const agentAt = (tcti: string) => createAgentAttestor({ ...environment, tcti })
const agentFor = (tpm: Swtpm) => agentAt(tpm.tcti)

const endorsementAuthorities = await testTpmAuthorities()

/** A server that has never seen the node: every test's TPM is a copy of one, with a clock that begins again. */
const newServer = () =>
  createServerAttestor({
    ...environment,
    endorsementAuthorities,
    allow: 'endorsement_ca',
    inventory: new MemoryTpmInventory(),
  })

const outcome = (agent: ReturnType<typeof agentAt>) => outcomeOf(() => attest(agent, newServer()))

async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await clock.sleep(soon, never)
}

for (const [what, tcti, reason] of [
  ['a device that is not there', 'device:/dev/no-tpm', 'tpm-absent'],
  ['a socket that is not there', 'swtpm:path=/nowhere/sock', 'tpm-absent'],
  ['a port at which nobody listens', 'swtpm:host=127.0.0.1,port=1', 'tpm-connection-lost'],
  ['a device that is no TPM', 'device:/dev/null', 'tpm-connection-lost'],
  ['a shell command instead of a TPM', 'cmd:false', 'tpm-tcti-invalid'],
  ['a library instead of a TPM', 'libm.so.6', 'tpm-tcti-invalid'],
  ['an option after a device', 'device:/dev/tpm0,cmd:false', 'tpm-tcti-invalid'],
] as const)
  test(`an agent given ${what} says ${reason}, with the remedy`, async () => {
    const agent = agentAt(tcti)
    assert.equal(await outcome(agent), reason)
    assert.equal(agent.status().state, 'failed')
    assert.match(agent.status().detail, /^cannot use the TPM: .+ \(.+\); .+/)
  })

test('an agent whose user may not open the TPM says tpm-permission', async (context) => {
  if (process.getuid?.() !== 0) return context.skip('only root can become another user')
  const directory = await mkdtemp(join(tmpdir(), 'assay-device-'))
  const device = join(directory, 'tpmrm0')
  await writeFile(device, '', { mode: 0o600 })
  await chmod(directory, 0o755)
  process.seteuid?.(65534)
  try {
    assert.equal(await outcome(agentAt(`device:${device}`)), 'tpm-permission')
  } finally {
    process.seteuid?.(0)
    await rm(directory, { recursive: true })
  }
})

test('a TPM that is killed in mid-attestation fails the attempt, and the next one succeeds', async () => {
  await using tpm = await startTestTpm()
  const agent = agentFor(tpm)
  {
    await using attestation = await agent.attest(agentExchange())
    const exchange = serverExchange(attestation.payload, async (challenge) => {
      tpm.signal('SIGKILL')
      await tpm.ended
      return await attestation.respond(challenge)
    })
    assert.equal(await outcomeOf(() => newServer().attest(exchange)), 'tpm-connection-lost')
  }
  assert.equal(agent.status().state, 'failed')
  await using again = await startSwtpm(tpm.directory)
  assert.equal(again.tcti, tpm.tcti)
  assert.equal(await outcome(agent), 'accepted')
  assert.equal(agent.status().state, 'ok')
})

test('a TPM that is killed at any moment fails the attempt with a name', async () => {
  for (const milliseconds of [0, 1, 2, 4, 8, 12, 16, 20]) {
    await using tpm = await startTestTpm()
    const agent = createAgentAttestor({
      ...environment,
      tcti: tpm.tcti,
      endorsementKey: 'rsa-2048-high',
    })
    const running = outcome(agent)
    await clock.sleep(Temporal.Duration.from({ milliseconds }), never)
    tpm.signal('SIGKILL')
    const ended = await running
    assert.ok(['tpm-connection-lost', 'tpm-absent', 'accepted'].includes(ended), ended)
  }
})

test('a TPM that never answers costs the attempt and one thread, and works again when it answers', async () => {
  await using tpm = await startTestTpm()
  const slow = new FakeClock()
  const agent = createAgentAttestor({ ...environment, clock: slow, tcti: tpm.tcti })
  {
    await using attestation = await agent.attest(agentExchange())
    const exchange = serverExchange(attestation.payload, async (challenge) => {
      tpm.signal('SIGSTOP')
      let waiting = true
      const answer = attestation.respond(challenge).finally(() => {
        waiting = false
      })
      const hopeless = eventually(async () => {
        await slow.advance(Temporal.Duration.from({ seconds: 31 }))
        return !waiting
      })
      const [answered] = await Promise.allSettled([answer, hopeless])
      assert.equal(answered.status, 'rejected')
      return await answer
    })
    assert.equal(await outcomeOf(() => newServer().attest(exchange)), 'tpm-slow')
  }
  assert.equal(await outcome(agent), 'tpm-slow')
  assert.match(agent.status().detail, /still has not answered an earlier command/)
  tpm.signal('SIGCONT')
  await eventually(async () => (await outcome(agent)) === 'accepted')
})

test('a TPM full of what killed agents left is cleaned, and other programs’ keys stay', async () => {
  await using tpm = await startTestTpm()
  await using killed = await openTpm(tpm.tcti)
  const options = { profile: undefined, hierarchyPassword: new Uint8Array(0) }
  await loadEndorsementKey(killed, options)
  await createAttestationKey(killed, options)
  const { handle } = await killed.execute(createOwnerKey())
  await repeat(killed, startSession('policy'))
  assert.equal((await loadedHandles(tpm.tcti)).length, 6)
  assert.equal(await outcome(agentFor(tpm)), 'accepted')
  assert.deepEqual(await loadedHandles(tpm.tcti), [handle])
})

test('a TPM in failure mode is named, and works after a reset', async () => {
  await using tpm = await startTestTpm()
  const agent = agentFor(tpm)
  const state = join(tpm.directory, 'state')
  await rename(state, `${state}.away`)
  {
    await using owner = await openTpm(tpm.tcti)
    await outcomeOf(() => owner.execute(clear)) // it cannot write what this changes
  }
  assert.equal(await outcome(agent), 'tpm-failure-mode')
  assert.equal(agent.status().state, 'failed')
  tpm.signal('SIGKILL')
  await tpm.ended
  await rename(`${state}.away`, state)
  await using again = await startSwtpm(tpm.directory)
  assert.equal(again.tcti, tpm.tcti)
  assert.equal(await outcome(agent), 'accepted')
})

test('a password of the endorsement hierarchy is asked for, and used', async () => {
  await using tpm = await startTestTpm()
  {
    await using owner = await openTpm(tpm.tcti)
    await owner.execute(setEndorsementPassword('site secret'))
  }
  assert.equal(await outcome(agentFor(tpm)), 'tpm-authorization')
  const agent = createAgentAttestor({
    ...environment,
    tcti: tpm.tcti,
    endorsementPassword: utf8Bytes('site secret'),
  })
  assert.equal(await outcome(agent), 'accepted')
})

test('agents that are killed leave no key that the next one does not clean up, and no session that is in its way', async () => {
  await using tpm = await startTestTpm()
  for (let round = 0; round < 6; round++) {
    const agent = startAttestingAgent(tpm.tcti)
    await once(agent, 'message')
    await clock.sleep(Temporal.Duration.from({ milliseconds: 3 * round }), never)
    agent.kill('SIGKILL')
    await once(agent, 'exit')
  }
  assert.equal(await outcome(agentFor(tpm)), 'accepted')
  // A policy session may be another program's as well: those are flushed only when there is no place for one.
  const left = (await loadedHandles(tpm.tcti)).filter((handle) => handle >>> 24 !== 0x03)
  assert.deepEqual(left, [])
})

/** Attests for ever, in a process of its own; says so once before it begins. */
function startAttestingAgent(tcti: string): ChildProcess {
  const program = new URL('../support/attesting-agent.ts', import.meta.url).pathname
  return spawn(process.execPath, [program, tcti], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
}
