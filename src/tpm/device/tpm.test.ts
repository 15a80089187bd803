import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concatBytes } from '#base/bytes.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { SystemRandom } from '#base/random.ts'
import { u16, u32 } from '../wire/marshal.ts'
import { Tpm } from './tpm.ts'
import { describeFailure, TpmError } from './tpm-error.ts'
import type { Transport } from './transport.ts'

/** A TPM that gives `responses` in turn, the last one for ever, and remembers what it was sent. */
function scripted(...responses: Uint8Array[]): { transport: Transport; commands: Uint8Array[] } {
  const commands: Uint8Array[] = []
  const transport = {
    broken: false,
    close() {},
    async transmit(command: Uint8Array) {
      commands.push(command)
      return responses[Math.min(commands.length, responses.length) - 1] ?? new Uint8Array(0)
    },
  }
  return { transport, commands }
}

const response = (rc: number, ...parts: Uint8Array[]): Uint8Array => {
  const body = concatBytes(...parts)
  return concatBytes(u16(0x8001), u32(10 + body.length), u32(rc), body)
}
const getRandom = { code: 0x17b, name: 'TPM2_GetRandom', parameters: u16(4) }

function open(transport: Transport, clock = new FakeClock()): Tpm {
  return new Tpm(transport, { clock, random: new SystemRandom() }, { managed: false })
}

test('Tpm.execute() frames a command and returns what the response holds', async () => {
  const { transport, commands } = scripted(response(0, u32(0xdeadbeef)))
  await using tpm = open(transport)
  const { reply } = await tpm.execute(getRandom)
  assert.equal(reply.u32(), 0xdeadbeef)
  assert.deepEqual(
    commands.map((command) => command.toHex()),
    ['80010000000c0000017b0004'],
  )
})

test('Tpm.execute() sends a command again while the TPM says it is busy, with growing patience', async () => {
  const busy = [0x922, 0x90a, 0x908, 0x920, 0xb0922].map((rc) => response(rc))
  const { transport, commands } = scripted(...busy, response(0))
  const clock = new FakeClock()
  await using tpm = open(transport, clock)
  const running = tpm.execute(getRandom)
  for (const milliseconds of [10, 20, 40, 80, 160]) {
    while (clock.sleeping === 0) await new Promise((resolve) => process.nextTick(resolve))
    await clock.advance(Temporal.Duration.from({ milliseconds }))
  }
  await running
  assert.equal(commands.length, 6)
  assert.equal(new Set(commands.map((command) => command.toHex())).size, 1)
})

test('Tpm.execute() gives up on a TPM that stays busy', async () => {
  const { transport, commands } = scripted(response(0x922))
  const clock = new FakeClock()
  await using tpm = open(transport, clock)
  let failure: unknown
  const running = tpm.execute(getRandom).catch((error: unknown) => {
    failure = error
  })
  while (failure === undefined) await clock.advance(Temporal.Duration.from({ seconds: 1 }))
  await running
  assert.equal(commands.length, 9)
  assert.equal(describeFailure(failure).reason, 'tpm-busy')
})

for (const [what, bytes] of [
  ['says it is longer than it is', Uint8Array.fromHex('8001ffffffff00000000')],
  ['says it is shorter than it is', Uint8Array.fromHex('80010000000900000000')],
  ['is cut short', Uint8Array.fromHex('8001000000')],
  ['is empty', new Uint8Array(0)],
] as const)
  test(`Tpm.execute() refuses a response that ${what}`, async () => {
    await using tpm = open(scripted(bytes).transport)
    const failure = await tpm.execute(getRandom).catch((error: unknown) => error)
    assert.ok(failure instanceof RangeError)
    assert.equal(describeFailure(failure).reason, 'tpm-response')
  })

for (const [rc, reason] of [
  [0x100, 'tpm-not-started'],
  [0x101, 'tpm-failure-mode'],
  [0x902, 'tpm-full'],
  [0x903, 'tpm-full'],
  [0xb0902, 'tpm-full'],
  [0x921, 'tpm-locked-out'],
  [0x922, 'tpm-busy'],
  [0x9a2, 'tpm-authorization'],
  [0x98e, 'tpm-authorization'],
  [0x1df, 'tpm-error'],
  [0xa0009, 'tpm-slow'],
  [0xa000a, 'tpm-connection-lost'],
  [0xa0015, 'tpm-tcti-missing'],
] as const)
  test(`describeFailure() calls 0x${rc.toString(16)} ${reason}`, () => {
    assert.equal(describeFailure(new TpmError(rc, 'TPM2_Quote')).reason, reason)
  })
