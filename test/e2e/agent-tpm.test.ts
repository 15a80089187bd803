// An agent that proves itself by a TPM: nothing of its identity is on disk, and it comes back by itself.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { SystemClock } from '#base/clock.ts'
import { connectUnix } from '#rpc/client.ts'
import { DiagnosisDefinition, type Status } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { SpiffeWorkloadAPIDefinition } from '#rpc/gen/spiffe/workload/workload.ts'
import { Daemon } from '../support/daemon.ts'
import { Installation } from '../support/installation.ts'
import { eventually, workloadHeader as metadata, ownSelector } from '../support/live-agent.ts'

const root = new URL('../..', import.meta.url).pathname
let assay: Installation

before(async () => {
  assay = new Installation()
  const fingerprint = await assay.startTpm()
  await assay.startServer('memory', 'agent_ttl: 20s\nratelimit: { attestation: false }\n')
  await assay.allowTpm(fingerprint, 'node-1')
  await assay.startAgent()
  await assay.createEntry((await status()).agentId, assay.id('/web'), ownSelector)
})

after(async () => {
  await assay[Symbol.asyncDispose]()
})

async function status(): Promise<Status> {
  using connection = connectUnix(assay.at('admin/admin.sock'), { clock: new SystemClock() })
  return await connection.client(DiagnosisDefinition).getStatus({})
}

/** The first SPIFFE ID this process is given. */
async function ownId(): Promise<string | undefined> {
  using connection = connectUnix(assay.workloadSocket, { clock: new SystemClock() })
  const client = connection.client(SpiffeWorkloadAPIDefinition)
  for await (const { svids } of client.fetchX509SVID({}, { metadata })) return svids[0]?.spiffeId
  return undefined
}

/** Waits for up to 60 s: a software TPM on a busy machine is slow. */
async function statusWhen(isIt: (status: Status) => boolean, what: string): Promise<Status> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await eventually(
        async () => {
          const now = await status()
          return isIt(now) ? now : undefined
        },
        what,
        50,
      )
    } catch (error) {
      if (attempt === 5) throw error
    }
  }
}

test('an agent with a TPM keeps nothing but the bundle', async () => {
  assert.match((await status()).agentId, /\/spire\/agent\/tpm\/[0-9a-f]{64}$/)
  assert.deepEqual(readdirSync(assay.at('agent')), ['bundle.json'])
})

test('an agent with a TPM proves itself anew for each SVID of its own', async () => {
  const { agentSvidExpiresAt, agentId } = await status()
  const next = await statusWhen(
    (now) => now.agentSvidExpiresAt > agentSvidExpiresAt,
    'another SVID of the agent',
  )
  assert.equal(next.agentId, agentId)
  assert.equal(await ownId(), assay.id('/web'))
  const log = readFileSync(assay.at('assay-agent.log'), 'utf8')
  assert.match(log, /the agent has a new SVID/)
  assert.doesNotMatch(log, /wants this node to prove itself again/, 'one proof is enough')
})

test('R14 an agent whose TPM is lost serves on, says so, and recovers without a restart', async () => {
  const [tpm] = assay.daemons
  assert.equal(tpm?.name, 'swtpm')
  await tpm[Symbol.asyncDispose]()
  const lost = await statusWhen((now) => now.nodeAttestor === 'failed', 'word of the lost TPM')
  assert.notEqual(lost.nodeAttestorDetail, '')
  assert.equal(await ownId(), assay.id('/web'))
  // Its own SVID runs out meanwhile, so that only the TPM can open the server's door again.
  await statusWhen((now) => now.state === 'attesting', 'the end of the agent’s SVID')
  assert.equal(await ownId(), assay.id('/web'))
  await using back = new Daemon('swtpm', [`${root}scripts/software-tpm`, 'run', assay.at('tpm')], {
    log: assay.at('swtpm-again.log'),
  })
  assert.ok(back.pid > 0)
  const recovered = await statusWhen((now) => now.state === 'ready', 'the TPM')
  assert.equal(recovered.nodeAttestor, 'ok')
})
