// What a signature costs the server: by a key in this process, and by one in a token through assay-signer.
import { readFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import process from 'node:process'
import { parseArgs } from 'node:util'
import type { KeyType, SigningKey } from '#server/plugin/key-manager/key-manager.ts'
import { newMemoryKeyManager } from '#server/plugin/key-manager/memory.ts'
import { newFaultyHsm } from '../test/support/faulty-hsm.ts'
import { startSignerService } from '../test/support/signer-service.ts'

const help = `usage: scripts/node bench/signing.ts [--seconds N] [--runs N]

Signs in this process, which stands for the server, and prints signatures a second and the CPU time of this process
and of assay-signer for one. The last row is a token that takes 25 ms a signature.
`

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    runs: { type: 'string', default: '3' },
    help: { type: 'boolean', default: false },
  },
})

interface Cost {
  readonly rate: number
  /** CPU of this process for one signature: microseconds. */
  readonly server: number
  /** CPU of assay-signer for one signature: microseconds. */
  readonly signer: number
}

/** utime and stime of a process, in microseconds: proc_pid_stat(5), at 100 ticks a second. */
function cpuOf(pid: number | undefined): number {
  if (pid === undefined) return 0
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}

async function measureOnce(
  key: SigningKey,
  { inFlight, pid, seconds }: { inFlight: number; pid: number | undefined; seconds: number },
): Promise<Cost> {
  const message = new Uint8Array(300)
  let signed = 0
  const until = performance.now() + seconds * 1000
  const before = { server: process.cpuUsage(), signer: cpuOf(pid), at: performance.now() }
  const caller = async (): Promise<void> => {
    // A key in this process answers at once, and would never let the clock be looked at otherwise.
    while (performance.now() < until) {
      await key.sign(message)
      signed++
    }
  }
  await Promise.all(Array.from({ length: inFlight }, caller))
  const elapsed = (performance.now() - before.at) / 1000
  const { user, system } = process.cpuUsage(before.server)
  return {
    rate: signed / elapsed,
    server: (user + system) / signed,
    signer: (cpuOf(pid) - before.signer) / signed,
  }
}

async function row(
  work: string,
  key: SigningKey,
  options: { readonly inFlight: number; readonly pid?: number | undefined },
): Promise<void> {
  const costs: Cost[] = []
  const seconds = Number(values.seconds)
  await measureOnce(key, { pid: undefined, ...options, seconds: 0.5 })
  for (let run = 0; run < Number(values.runs); run++) {
    costs.push(await measureOnce(key, { pid: undefined, ...options, seconds }))
  }
  costs.sort((a, b) => a.server - b.server)
  const { rate, server, signer } = costs[Math.floor(costs.length / 2)] as Cost
  const numbers = [rate, server, signer].map((number) => number.toFixed().padStart(8))
  console.log(`| ${work.padEnd(52)} | ${numbers.join(' | ')} |`)
}

if (values.help) {
  console.log(help)
} else {
  console.log(`| ${'signing'.padEnd(52)} |      per s | µs server | µs signer |`)
  for (const type of ['ec-p256', 'ec-p384', 'rsa-2048'] as const satisfies readonly KeyType[]) {
    await using memory = newMemoryKeyManager()
    await row(`${type}, key in the process`, await memory.generateKey('k', type), { inFlight: 16 })
    await using hsm = await newFaultyHsm()
    await using token = await hsm.openDirectly()
    const key = await token.generateKey('k', type)
    for (const inFlight of [1, 16]) {
      const work = `${type}, SoftHSM through assay-signer, ${inFlight} in flight`
      await row(work, key, { inFlight, pid: token.signerPid })
    }
  }
  await using served = await newFaultyHsm()
  const { directory, module, pinFile } = served.token
  await using service = await startSignerService({
    directory,
    environment: served.environment,
    token: `module: ${module}, token_label: assay, pin_file: ${pinFile}`,
  })
  await using behind = await served.openDirectly({ signerSocketPath: service.socketPath })
  const behindKey = await behind.generateKey('k', 'ec-p256')
  for (const inFlight of [1, 16]) {
    const work = `ec-p256, SoftHSM behind a socket, ${inFlight} in flight`
    await row(work, behindKey, { inFlight, pid: service.pids()[0] })
  }
  await using hsm = await newFaultyHsm()
  await using slow = await hsm.open({ sessions: 16 })
  const key = await slow.generateKey('k', 'ec-p256')
  await hsm.misbehave('C_Sign delay 25')
  await row('ec-p256, a token that takes 25 ms, 16 sessions', key, {
    inFlight: 32,
    pid: slow.signerPid,
  })
}
