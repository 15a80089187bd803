import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createTpmNodeAttestor as createAgentAttestor } from '#agent/plugin/node-attestor/tpm.ts'
import { concatBytes } from '#base/bytes.ts'
import { SystemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import {
  createTpmNodeAttestor as createServerAttestor,
  type TpmNodeAttestorOptions,
} from '#server/plugin/node-attestor/tpm.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { password, readHandles } from '#tpm/device/commands.ts'
import { loadTpmDescription } from '#tpm/device/description.ts'
import { entity, Tpm } from '#tpm/device/tpm.ts'
import { permanentHandle } from '#tpm/wire/constants.ts'
import { sized, u16, u32 } from '#tpm/wire/marshal.ts'
import { type EndorsementKeyProfileName, endorsementKeyProfiles } from '#tpm/wire/templates.ts'
import { type Swtpm, startSwtpm, startTestTpm, testTpmAuthorities } from '../support/swtpm.ts'
import { attest, MemoryTpmInventory, outcomeOf } from '../support/tpm-exchange.ts'

const trustDomain = parseTrustDomain('example.org')
const environment = { clock: new SystemClock(), random: new SystemRandom(), log: silentLog }

function agentFor(tpm: Swtpm, endorsementKey?: EndorsementKeyProfileName) {
  return createAgentAttestor({ ...environment, tcti: tpm.tcti, trustDomain, endorsementKey })
}

async function server(options: Partial<TpmNodeAttestorOptions> = {}) {
  const inventory = new MemoryTpmInventory()
  const attestor = createServerAttestor({
    ...environment,
    trustDomain,
    endorsementAuthorities: await testTpmAuthorities(),
    allow: 'endorsement_ca',
    inventory,
    ...options,
  })
  return { inventory, attestor }
}

async function transientHandles(tpm: Swtpm): Promise<number[]> {
  await using open = await Tpm.open(tpm.tcti, environment)
  return [...(await readHandles(open, 0x80000000)), ...(await readHandles(open, 0x02000000))]
}

async function extendPcr(tpm: Tpm, index: number): Promise<void> {
  await tpm.execute({
    code: 0x182,
    name: 'TPM2_PCR_Extend',
    handles: [entity(index)],
    authorizations: [password()],
    parameters: concatBytes(u32(1), u16(0x0b), new Uint8Array(32).fill(index)),
  })
}

for (const { name } of endorsementKeyProfiles)
  test(`a node attests with endorsement key ${name} and leaves nothing in its TPM`, async () => {
    await using tpm = await startTestTpm()
    const { attestor, inventory } = await server()
    const node = await attest(agentFor(tpm, name), attestor)
    const { endorsementKey } = await loadTpmDescription(tpm.tcti, {
      ...environment,
      endorsementKey: name,
    })
    assert.equal(node.agentId, `spiffe://example.org/spire/agent/tpm/${endorsementKey.hash}`)
    assert.equal(node.canReattest, true)
    const zeros = '0'.repeat(64)
    assert.deepEqual(
      node.selectors,
      [
        `tpm:ek:${endorsementKey.hash}`,
        'tpm:firmware:8217.4131.22.13878',
        'tpm:manufacturer:00001014',
        'tpm:model:swtpm',
        ...[0, 1, 14, 2, 3, 4, 5, 6, 7, 9].map((index) => `tpm:pcr:sha256:${index}:${zeros}`),
      ].sort(),
    )
    assert.equal(inventory.records.get(endorsementKey.hash)?.clock?.resetCount, 3)
    assert.deepEqual(await transientHandles(tpm), [])
  })

test('a node has one identity before and after its TPM is reset, and its clock goes on', async () => {
  await using tpm = await startTestTpm()
  const { attestor, inventory } = await server()
  const before = await attest(agentFor(tpm), attestor)
  const [first] = [...inventory.records.values()].map(({ clock }) => clock)
  tpm.signal('SIGTERM')
  await tpm.ended
  await using again = await startSwtpm(tpm.directory)
  const after = await attest(agentFor(again), attestor)
  const [second] = [...inventory.records.values()].map(({ clock }) => clock)
  assert.equal(after.agentId, before.agentId)
  assert.ok((second?.resetCount ?? 0) > (first?.resetCount ?? 0))
})
