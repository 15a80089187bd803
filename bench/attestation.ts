import { createTpmNodeAttestor } from '#agent/plugin/node-attestor/tpm.ts'
import { attestNode } from '#agent/server-client/attest-node.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { connectTls } from '#rpc/client.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { attest, joinTokens } from './agent-session.ts'
import { type Effort, type Figure, measure, warmUpSeconds } from './measure.ts'
import { clock } from './registration.ts'
import type { OwnPair, Subject } from './subject.ts'

/** More than any server here does. */
const maxAttestationsPerSecond = 1500

/** Every attestation needs a token of its own, made before. */
export async function joinTokenAttestation(
  work: string,
  { server }: Subject,
  effort: Effort,
): Promise<Figure> {
  const seconds = (effort.seconds + warmUpSeconds) * effort.runs
  const tokens = await joinTokens(server, Math.ceil(maxAttestationsPerSecond * seconds))
  const keyPair = generateEcKeyPair('ec-p256')
  const load = {
    work,
    pid: server.pid,
    async call() {
      const token = tokens.pop()
      if (token === undefined) throw new Error('the tokens have run out')
      await attest(server, token, keyPair)
    },
  }
  return await measure(load, effort)
}

/** Quote and activation of a credential; this process is the agent and pays for its half and for the TPM's. */
export async function tpmAttestation(
  work: string,
  { server, agent }: Subject,
  own: OwnPair,
  effort: Effort,
): Promise<Figure> {
  const [, , name = ''] = agent.id.split('/')
  await using tpm = await own.startOtherTpm()
  const attestor = createTpmNodeAttestor({
    clock,
    random: new SystemRandom(),
    log: silentLog,
    trustDomain: parseTrustDomain(name),
    tcti: tpm.tcti,
  })
  const { signal } = new AbortController()
  const { host, port } = server
  const load = {
    work,
    pid: server.pid,
    concurrency: 1,
    async call() {
      using connection = connectTls({ host, port, verifyServer: () => {}, clock, pinned: true })
      await attestNode({ connection, attestor, keyType: 'ec-p256', signal })
    },
  }
  // A software TPM does some ten of them a second.
  return await measure(load, { ...effort, seconds: 5 * effort.seconds })
}
