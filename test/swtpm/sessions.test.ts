import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { activateCredential } from '#tpm/device/commands.ts'
import {
  createAttestationKey,
  loadEndorsementKey,
  startEndorsementSession,
} from '#tpm/device/endorsement.ts'
import { quotePcrs } from '#tpm/device/quote-pcrs.ts'
import { parseTcti } from '#tpm/device/tcti.ts'
import { Tpm } from '#tpm/device/tpm.ts'
import { openTransport, type Transport } from '#tpm/device/transport.ts'
import { makeCredential } from '#tpm/verify/credential.ts'
import { pcrSelection } from '#tpm/wire/pcr-selection.ts'
import { type EndorsementKeyProfileName, endorsementKeyProfiles } from '#tpm/wire/templates.ts'
import { startTestTpm } from '../support/swtpm.ts'
import { openTpm, pcrExtend } from '../support/tpm-commands.ts'
import { outcomeOf } from '../support/tpm-exchange.ts'

// What an attacker on the bus between processor and TPM sees and can change.

const random = new SystemRandom()
const clock = new SystemClock()
const hierarchyPassword = new Uint8Array(0)
const activateCode = 0x147
const quoteCode = 0x158

/** A bus that shows and alters what passes. */
interface Bus {
  readonly seen: Uint8Array[]
  command?: (bytes: Uint8Array) => Promise<Uint8Array> | Uint8Array
  response?: (bytes: Uint8Array, command: Uint8Array) => Uint8Array
}

async function tap(tcti: string, bus: Bus): Promise<Tpm> {
  const inner = await openTransport(parseTcti(tcti), clock)
  const transport: Transport = {
    get broken() {
      return inner.broken
    },
    close: () => inner.close(),
    async transmit(command, deadlineMs) {
      const sent = (await bus.command?.(command)) ?? command
      const response = await inner.transmit(sent, deadlineMs)
      bus.seen.push(sent, response)
      return bus.response?.(response, command) ?? response
    },
  }
  return new Tpm(transport, { clock, random }, { managed: false })
}

const codeOf = (command: Uint8Array): number => new DataView(command.buffer).getUint32(6)
const flipped = (bytes: Uint8Array, at: number): Uint8Array =>
  bytes.with(at, (bytes.at(at) ?? 0) ^ 1)

/** Activates `secret` over `bus`. */
async function activate(
  tcti: string,
  bus: Bus,
  { secret, profile }: { secret: Uint8Array; profile: EndorsementKeyProfileName },
): Promise<Uint8Array> {
  await using tpm = await tap(tcti, bus)
  const options = { profile, hierarchyPassword }
  const endorsementKey = await loadEndorsementKey(tpm, options)
  await using ek = endorsementKey.key
  await using attestationKey = await createAttestationKey(tpm, options)
  const credential = makeCredential(ek.area, attestationKey.name, { secret, random })
  const session = await startEndorsementSession(tpm, endorsementKey, options)
  try {
    return await activateCredential(
      tpm,
      { attestationKey, endorsementKey: ek },
      session,
      credential,
    )
  } catch (error) {
    await tpm.release(session.handle).catch(() => {}) // it may have ended with the command
    throw error
  }
}

for (const { name: profile } of endorsementKeyProfiles)
  test(`an activated secret never crosses the bus in the clear (${profile})`, async () => {
    await using tpm = await startTestTpm()
    const bus: Bus = { seen: [] }
    const secret = random.bytes(32)
    assert.deepEqual(await activate(tpm.tcti, bus, { secret, profile }), secret)
    const hex = bus.seen.map((bytes) => bytes.toHex()).join('|')
    assert.equal(hex.includes(secret.toHex()), false)
  })

test('an activation whose command is altered on the bus is refused by the TPM', async () => {
  await using tpm = await startTestTpm()
  const bus: Bus = {
    seen: [],
    command: (bytes) => (codeOf(bytes) === activateCode ? flipped(bytes, bytes.length - 3) : bytes),
  }
  const attempt = activate(tpm.tcti, bus, { secret: random.bytes(32), profile: 'ecc-p256-low' })
  await assert.rejects(attempt, { name: 'TpmError' })
})

test('an activation whose response is altered on the bus is refused by us, wherever it is', async () => {
  await using tpm = await startTestTpm()
  const from = 14 // after tag, size, code and parameterSize
  for (const at of [from + 2, from + 20, -1, -20, -40]) {
    const bus: Bus = {
      seen: [],
      response: (bytes, command) => (codeOf(command) === activateCode ? flipped(bytes, at) : bytes),
    }
    await assert.rejects(
      activate(tpm.tcti, bus, { secret: random.bytes(32), profile: 'ecc-p256-low' }),
      RangeError,
    )
  }
})

test('a register that is extended between reading and quoting is read again', async () => {
  await using tpm = await startTestTpm()
  await using other = await openTpm(tpm.tcti)
  let extensions = 2
  const bus: Bus = {
    seen: [],
    async command(bytes) {
      if (codeOf(bytes) === quoteCode && extensions-- > 0) await other.execute(pcrExtend(7))
      return bytes
    },
  }
  const [, , third] = await quote(tpm.tcti, bus)
  assert.notEqual(third?.toHex(), '0'.repeat(64))
  extensions = 1000
  assert.equal(await outcomeOf(() => quote(tpm.tcti, bus)), 'tpm-pcrs-changing')
})

test('a bank that is not active is named instead of quoted as nothing', async () => {
  await using tpm = await startTestTpm()
  assert.equal(await outcomeOf(() => quote(tpm.tcti, { seen: [] }, 'sha384')), 'tpm-pcr-bank')
})

async function quote(
  tcti: string,
  bus: Bus,
  bank: 'sha256' | 'sha384' = 'sha256',
): Promise<readonly Uint8Array[]> {
  await using tpm = await tap(tcti, bus)
  await using key = await createAttestationKey(tpm, { profile: undefined, hierarchyPassword })
  const selection = pcrSelection(bank, [0, 1, 7, 2, 3, 4, 5, 6, 8, 9])
  const { pcrValues } = await quotePcrs(tpm, key, { qualifyingData: new Uint8Array(32), selection })
  return [0, 1, 7].map((index) => pcrValues[selection.indexes.indexOf(index)] ?? new Uint8Array(0))
}
