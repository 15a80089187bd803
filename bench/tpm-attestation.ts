import { createTpmNodeAttestor as createAgentAttestor } from '#agent/plugin/node-attestor/tpm.ts'
import { SystemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { createTpmNodeAttestor as createServerAttestor } from '#server/plugin/node-attestor/tpm.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { endorsementKeyProfiles } from '#tpm/wire/templates.ts'
import { startTestTpm, testTpmAuthorities } from '../test/support/swtpm.ts'
import { agentExchange, MemoryTpmInventory, serverExchange } from '../test/support/tpm-exchange.ts'

// What a TPM attestation costs: CPU time of the server's half, and the agent's half from opening an swtpm to
// having freed it. Usage: node bench/tpm-attestation.ts [rounds]

const rounds = Number(process.argv[2] ?? 100)
const trustDomain = parseTrustDomain('example.org')
const environment = {
  clock: new SystemClock(),
  random: new SystemRandom(),
  log: silentLog,
  trustDomain,
}
const endorsementAuthorities = await testTpmAuthorities()

/** User and system CPU time of this process, in milliseconds. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

const median = (values: readonly number[]): string =>
  (values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0).toFixed(2)

for (const { name } of endorsementKeyProfiles) {
  await using tpm = await startTestTpm()
  const agent = createAgentAttestor({ ...environment, tcti: tpm.tcti, endorsementKey: name })
  const server = createServerAttestor({
    ...environment,
    endorsementAuthorities,
    allow: 'endorsement_ca',
    inventory: new MemoryTpmInventory(),
  })
  const agentMs: number[] = []
  const serverCpuMs: number[] = []
  for (let round = 0; round < rounds; round++) {
    const started = performance.now()
    let away = 0
    {
      await using attestation = await agent.attest(agentExchange())
      const begun = cpuMs()
      const handed = performance.now()
      let elsewhereCpu = 0
      let elsewhere = 0
      const exchange = serverExchange(attestation.payload, async (challenge) => {
        const [cpu, now] = [cpuMs(), performance.now()]
        const answer = await attestation.respond(challenge)
        elsewhereCpu = cpuMs() - cpu
        elsewhere = performance.now() - now
        return answer
      })
      await server.attest(exchange)
      serverCpuMs.push(cpuMs() - begun - elsewhereCpu)
      away = performance.now() - handed - elsewhere
    }
    agentMs.push(performance.now() - started - away)
  }
  process.stdout.write(
    `${name}: server ${median(serverCpuMs)} ms of CPU, agent ${median(agentMs)} ms on swtpm (medians of ${rounds})\n`,
  )
}
