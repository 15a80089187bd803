import { type RefusalExplanation, tpmRefusals } from '#attestation/tpm-refusals.ts'
import type { Connection } from '#rpc/client.ts'
import { type Refusal, RefusalsDefinition } from '#rpc/gen/assay/server/v1/refusals.ts'

/** Reasons that are not a TPM's. */
const others: Readonly<Record<string, RefusalExplanation>> = {
  'join-token-unknown': {
    meaning: 'There is no such join token: it was used, or never made here.',
    remedy: 'Make another with `assay token generate`, and start the agent with it.',
  },
  'join-token-expired': {
    meaning: 'The join token was not used in time.',
    remedy: 'Make another with `assay token generate`, with a longer `--ttl` if need be.',
  },
  'join-token-malformed': {
    meaning: 'What the agent sent is no join token.',
    remedy: 'Compare `join_token` in agent.yaml with what `assay token generate` printed.',
  },
  'node-attestor-unknown': {
    meaning: 'The agent attests in a way that this server does not take.',
    remedy: 'Name the same attestor in `node_attestors` of server.yaml and in agent.yaml.',
  },
  'attestation-timeout': {
    meaning: 'The agent did not go on with the attestation in time.',
    remedy: 'Run `assay tpm doctor` on the node. The agent tries again by itself.',
  },
  'agent-banned': {
    meaning: 'An operator has banned this node.',
    remedy: 'If it may come back: `assay agent evict <SPIFFE ID>`.',
  },
}

const explanationOf = (reason: string): RefusalExplanation | undefined => {
  const known: Readonly<Record<string, RefusalExplanation>> = tpmRefusals
  if (Object.hasOwn(known, reason)) return known[reason]
  return Object.hasOwn(others, reason) ? others[reason] : undefined
}

/** Refusals of one node for one reason. */
interface Group {
  readonly count: number
  readonly firstAt: number
  readonly newest: Refusal
}

/**
 * Attestations that were refused, newest first, with what to do. A node that is refused comes back by itself, so that
 * the same refusal of the same node counts as one, with how often.
 */
export async function refusalsView(connection: Connection, signal: AbortSignal) {
  const { refusals } = await connection.client(RefusalsDefinition).list({ limit: 0 }, { signal })
  const groups = new Map<string, Group>()
  for (const refusal of refusals) {
    const { reason, subject, address, attestationType, at } = refusal
    const host = address.slice(0, address.lastIndexOf(':'))
    const key = JSON.stringify([reason, attestationType, subject === '' ? host : subject])
    const group = groups.get(key)
    groups.set(key, {
      count: (group?.count ?? 0) + 1,
      firstAt: at,
      newest: group?.newest ?? refusal,
    })
  }
  return {
    total: refusals.length,
    groups: [...groups.values()].map(({ count, firstAt, newest }) => ({
      ...newest,
      count,
      firstAt,
      meaning: explanationOf(newest.reason)?.meaning ?? '',
      remedy: explanationOf(newest.reason)?.remedy ?? '',
    })),
  }
}
