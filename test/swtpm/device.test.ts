import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { createTpmNodeAttestor as createAgentAttestor } from '#agent/plugin/node-attestor/tpm.ts'
import { SystemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { createTpmNodeAttestor as createServerAttestor } from '#server/plugin/node-attestor/tpm.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { parseTcti } from '#tpm/device/tcti.ts'
import { openTransport } from '#tpm/device/transport.ts'
import { type Swtpm, startTestTpm, testTpmAuthorities } from '../support/swtpm.ts'
import { attest, MemoryTpmInventory, outcomeOf } from '../support/tpm-exchange.ts'

// What a node has: a character device, read and written through tpm2-tss's device TCTI.

const environment = {
  clock: new SystemClock(),
  random: new SystemRandom(),
  log: silentLog,
  trustDomain: parseTrustDomain('example.org'),
}

interface TpmDevice extends AsyncDisposable {
  readonly path: string
  /** A file that makes it mute while it is there. */
  readonly mute: string
}

async function startDevice(tpm: Swtpm): Promise<TpmDevice> {
  const program = new URL('../support/tpm-device.py', import.meta.url).pathname
  const mute = join(tpm.directory, 'mute')
  const child = spawn('python3', [program, join(tpm.directory, 'sock'), mute], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = await once(child.stdout, 'data')
  const ended = once(child, 'exit')
  return {
    path: String(line).trim(),
    mute,
    async [Symbol.asyncDispose]() {
      child.kill()
      await ended
    },
  }
}

test('a node attests with a TPM that is a character device', async () => {
  await using tpm = await startTestTpm()
  await using device = await startDevice(tpm)
  const agent = createAgentAttestor({ ...environment, tcti: `device:${device.path}` })
  const server = createServerAttestor({
    ...environment,
    endorsementAuthorities: await testTpmAuthorities(),
    allow: 'endorsement_ca',
    inventory: new MemoryTpmInventory(),
  })
  assert.equal(await outcomeOf(() => attest(agent, server)), 'accepted')
  assert.equal(await outcomeOf(() => attest(agent, server)), 'accepted')
  assert.deepEqual(holders(device.path), [])
})

test('a device that does not answer is given up at the deadline, and answers again when it can', async () => {
  await using tpm = await startTestTpm()
  await using device = await startDevice(tpm)
  const getRandom = Uint8Array.fromHex('80010000000c0000017b0004')
  const stuck = await openTransport(parseTcti(`device:${device.path}`), environment.clock)
  await writeFile(device.mute, '')
  await assert.rejects(stuck.transmit(getRandom, 50), { rc: 0xa0009 })
  assert.equal(stuck.broken, true)
  stuck.close()
  await rm(device.mute)
  const works = await openTransport(parseTcti(`device:${device.path}`), environment.clock)
  assert.equal((await works.transmit(getRandom, 5000)).length, 16)
  works.close()
})

test('programs started while the TPM is open do not inherit it', async () => {
  await using tpm = await startTestTpm()
  await using device = await startDevice(tpm)
  const open = await openTransport(parseTcti(`device:${device.path}`), environment.clock)
  assert.equal(holders(device.path).length, 1)
  const inherited = execFileSync('sh', ['-c', 'ls -l /proc/self/fd'], { encoding: 'utf8' })
  assert.equal(inherited.includes(device.path), false)
  open.close()
})

/** Our descriptors of `path`. */
function holders(path: string): string[] {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path
    } catch {
      return false // the descriptor of the directory itself
    }
  })
}
