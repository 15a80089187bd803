import { createTpmNodeAttestor as createAgentAttestor } from '#agent/plugin/node-attestor/tpm.ts'
import { SystemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { createTpmNodeAttestor as createServerAttestor } from '#server/plugin/node-attestor/tpm.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { testTpmAuthorities } from './swtpm.ts'
import { attest, MemoryTpmInventory } from './tpm-exchange.ts'

// A process that attests by the TPM in its argument until it is killed.
const [tcti = ''] = process.argv.slice(2)
const trustDomain = parseTrustDomain('example.org')
const environment = {
  clock: new SystemClock(),
  random: new SystemRandom(),
  log: silentLog,
  trustDomain,
}
const agent = createAgentAttestor({ ...environment, tcti })
const server = createServerAttestor({
  ...environment,
  endorsementAuthorities: await testTpmAuthorities(),
  allow: 'endorsement_ca',
  inventory: new MemoryTpmInventory(),
})
process.send?.('attesting')
for (;;) await attest(agent, server)
