import { AssayError } from '#base/errors.ts'
import { type EcKeyType, generateEcKeyPair } from '#pki/private-key.ts'
import type { Connection } from '#rpc/client.ts'
import type { BidiCall } from '#rpc/client-call.ts'
import {
  AgentDefinition,
  type AttestAgentRequest,
  type AttestAgentResponse,
} from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import type { NodeAttestor } from '../plugin/node-attestor/node-attestor.ts'
import { type AgentIdentity, agentIdentity } from './agent-identity.ts'
import { certificateRequest } from './certificate-request.ts'

/** A node attestation may ask a slow TPM for a dozen commands. */
const limitMs = 120_000
const maxChallenges = 8

/**
 * Proves the node to its server, with a fresh key, over one connection that is verified and pinned.
 *
 * @throws AssayError as the server or the attestor threw it.
 */
export async function attestNode(options: {
  readonly connection: Connection
  readonly attestor: NodeAttestor
  readonly keyType: EcKeyType
  readonly signal: AbortSignal
}): Promise<AgentIdentity> {
  const { connection, attestor, keyType, signal } = options
  const pair = generateEcKeyPair(keyType)
  await connection.connect({ signal })
  await using attestation = await attestor.attest({
    csrPublicKey: pair.publicKey,
    tlsExporter: (label, length) => connection.exporter(label, length),
    signal,
  })
  using call = connection.client(AgentDefinition).attestAgent({ signal, timeoutMs: limitMs })
  const csr = certificateRequest(pair)
  await call.send({
    step: {
      $case: 'params',
      value: { data: { type: attestor.type, payload: attestation.payload }, params: { csr } },
    },
  })
  for (let challenges = 0; challenges <= maxChallenges; challenges += 1) {
    const step = await nextStep(call)
    if (step.$case === 'result') {
      const certificates = step.value.svid?.certChain ?? []
      return agentIdentity(certificates, {
        key: pair.privateKey,
        canReattest: step.value.reattestable,
      })
    }
    const value = await attestation.respond(step.value)
    await call.send({ step: { $case: 'challengeResponse', value } })
  }
  throw new AssayError('internal', `the server sent more than ${maxChallenges} challenges`)
}

async function nextStep(
  call: BidiCall<AttestAgentRequest, AttestAgentResponse>,
): Promise<NonNullable<AttestAgentResponse['step']>> {
  const response = await call.receive()
  if (response?.step === undefined) {
    throw new AssayError('internal', 'the server ended the attestation without a result')
  }
  return response.step
}
