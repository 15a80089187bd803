// R15: a TPM that other programs have locked or filled. The agent's own operations still work or fail by name within
// 30 seconds, it does not try without end, and it never raises the counter that locks a TPM.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createTpmNodeAttestor as createAgentAttestor } from '#agent/plugin/node-attestor/tpm.ts'
import { concatBytes, utf8Bytes } from '#base/bytes.ts'
import { SystemClock } from '#base/clock.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { createTpmNodeAttestor as createServerAttestor } from '#server/plugin/node-attestor/tpm.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { password, readProperties, readPublic } from '#tpm/device/commands.ts'
import type { Tpm, TpmCommand } from '#tpm/device/tpm.ts'
import { sized, u16 } from '#tpm/wire/marshal.ts'
import { nameOf } from '#tpm/wire/public-area.ts'
import { type EndorsementKeyProfileName, endorsementKeyProfiles } from '#tpm/wire/templates.ts'
import { breath, eventually, LiveAgent } from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'
import { startTestTpm, testTpmAuthorities } from '../support/swtpm.ts'
import {
  createOwnerKey,
  loadedHandles,
  lockableAttributes,
  openTpm,
  repeat,
  setEndorsementPassword,
  startSession,
} from '../support/tpm-commands.ts'
import { attest, MemoryTpmInventory, outcomeOf } from '../support/tpm-exchange.ts'

const trustDomain = parseTrustDomain('example.org')
const environment = {
  clock: new SystemClock(),
  random: new SystemRandom(),
  log: silentLog,
  trustDomain,
}
const endorsementAuthorities = await testTpmAuthorities()
/** The pass figure. */
const longestMs = 30_000

/** One attestation with both halves: how it ends, within 30 seconds. */
async function outcome(
  tcti: string,
  options: {
    readonly endorsementKey?: EndorsementKeyProfileName
    readonly endorsementPassword?: Uint8Array
  } = {},
): Promise<string> {
  const agent = createAgentAttestor({ ...environment, tcti, ...options })
  const server = createServerAttestor({
    ...environment,
    endorsementAuthorities,
    allow: 'endorsement_ca',
    inventory: new MemoryTpmInventory(),
  })
  const startMs = performance.now()
  const ended = await outcomeOf(() => attest(agent, server))
  const tookMs = performance.now() - startMs
  assert.ok(tookMs < longestMs, `it took ${tookMs} ms`)
  return ended
}

/** TPM_PT_LOCKOUT_COUNTER, as it stands in a `readProperties` answer. */
const failures = (tpm: Tpm) => readProperties(tpm, 0x20e, 1)

/** Gives wrong passwords until the TPM is in lockout. */
async function lockOut(tpm: Tpm): Promise<void> {
  const { handle } = await tpm.execute(
    createOwnerKey({ keyPassword: 'right', attributes: lockableAttributes }),
  )
  const name = nameOf(await readPublic(tpm, handle))
  const wrong: TpmCommand = {
    code: 0x158,
    name: 'TPM2_Quote',
    handles: [{ handle, name }],
    authorizations: [password(utf8Bytes('wrong'))],
    parameters: concatBytes(sized(), u16(0x10), new Uint8Array(4)),
  }
  for (let attempt = 0; attempt < 4; attempt++) await outcomeOf(() => tpm.execute(wrong))
  await assert.rejects(tpm.execute(wrong), { rc: 0x921 })
  await tpm.flush(handle)
}

for (const { name: endorsementKey } of endorsementKeyProfiles)
  test(`R15 a TPM in lockout attests all the same, and its counter is not raised (${endorsementKey})`, async () => {
    await using tpm = await startTestTpm()
    await using other = await openTpm(tpm.tcti)
    await lockOut(other)
    const before = await failures(other)
    assert.equal(await outcome(tpm.tcti, { endorsementKey }), 'accepted')
    assert.deepEqual(await failures(other), before)
  })

test('R15 an agent that is refused at the endorsement hierarchy raises no counter, in lockout or out of it', async () => {
  await using tpm = await startTestTpm()
  await using other = await openTpm(tpm.tcti)
  await other.execute(setEndorsementPassword('site secret'))
  for (const prepare of [async () => {}, () => lockOut(other)]) {
    await prepare()
    const before = await failures(other)
    assert.equal(await outcome(tpm.tcti), 'tpm-authorization')
    const endorsementPassword = utf8Bytes('wrong')
    assert.equal(await outcome(tpm.tcti, { endorsementPassword }), 'tpm-authorization')
    assert.deepEqual(await failures(other), before)
  }
})

for (const [what, command, left] of [
  ['keys', createOwnerKey(), 3],
  ['sessions', startSession('hmac'), undefined],
] as const)
  test(`R15 a TPM full of other programs’ ${what} is named, they stay, and it works when they are gone`, async () => {
    await using tpm = await startTestTpm()
    await using other = await openTpm(tpm.tcti)
    const handles = await repeat(other, command)
    assert.equal(handles.length, left ?? handles.length)
    const before = await failures(other)
    assert.equal(await outcome(tpm.tcti), 'tpm-full')
    assert.deepEqual((await loadedHandles(tpm.tcti)).sort(), handles.toSorted())
    for (const handle of handles) await other.flush(handle)
    assert.equal(await outcome(tpm.tcti), 'accepted')
    assert.deepEqual(await failures(other), before)
  })

test('R15 an agent whose TPM is full tries again at growing waits and no sooner, and gets on when there is room', async () => {
  const clock = new FakeClock()
  await using server = await LiveServer.start({ clock })
  await using tpm = await startTestTpm()
  await using other = await openTpm(tpm.tcti)
  const handles = await repeat(other, createOwnerKey())
  await using agent = await LiveAgent.start(server, {
    clock,
    nodeAttestor: `tpm: { tcti: "${tpm.tcti}" }`,
  })
  const attempts = (): string[] =>
    agent.lines.filter((line) => line.includes('the node is not attested yet'))
  const waits: number[] = []
  for (let attempt = 1; attempt <= 12; attempt += 1) {
    const line = await eventually(() => attempts()[attempt - 1], `attempt ${attempt}`)
    assert.equal(JSON.parse(line).reason, 'tpm-full')
    waits.push(Number(/trying again in ([0-9.]+) s/.exec(line)?.[1]))
    await breath(20)
    assert.equal(attempts().length, attempt, 'it has not waited')
    const longest = Temporal.Duration.from({ seconds: Math.ceil(waits.at(-1) ?? 0) + 1 })
    await clock.advance(longest)
  }
  // Half to one and a half of a wait that grows from half a second to half a minute.
  assert.ok(
    waits.slice(0, 2).every((seconds) => seconds < 1.5),
    waits.join(),
  )
  assert.ok(
    waits.slice(-2).every((seconds) => seconds >= 10),
    waits.join(),
  )
  const { nodeAttestor, nodeAttestorDetail } = await agent.status()
  assert.equal(nodeAttestor, 'failed')
  assert.match(nodeAttestorDetail, /other programs fill the TPM/)
  for (const handle of handles) await other.flush(handle)
  // The server of this test admits nobody by TPM: that it says so means that the TPM has done its part.
  await eventually(async () => {
    await clock.advance(Temporal.Duration.from({ seconds: 46 }))
    await breath(50)
    return (
      attempts().some((line) => JSON.parse(line).reason === 'node-attestor-unknown') || undefined
    )
  }, 'an attempt that gets on')
})
