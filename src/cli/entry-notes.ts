import { AssayError } from '#base/errors.ts'
import type { Connection } from '#rpc/client.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import type { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { Selector } from '#rpc/gen/spire/api/types/selector.ts'
import { idText, wireId } from './wire.ts'

/** What the `unix` workload attestor finds. */
const unixKinds = [
  'uid',
  'gid',
  'user',
  'group',
  'supplementary_gid',
  'supplementary_group',
  'path',
  'sha256',
]

/** A sentence for each selector that no process will ever show. */
export function selectorNotes(selectors: readonly Selector[]): readonly string[] {
  return selectors
    .filter(({ type, value }) => type === 'unix' && !unixKinds.includes(value.split(':')[0] ?? ''))
    .map(
      ({ value }) =>
        `note: no process shows the selector unix:${value}; after 'unix:' comes one of ${unixKinds.join(', ')}`,
    )
}

const isAgent = (id: string): boolean => /^spiffe:\/\/[^/]+\/spire\/agent\//.test(id)

/** However many entries are made at once, this many parents are looked up. */
const maxParents = 16

/** A sentence for each parent that is an agent the server does not know; it may still attest. */
export async function parentNotes(
  entries: readonly Entry[],
  options: { readonly connection: Connection; readonly signal: AbortSignal },
): Promise<readonly string[]> {
  const { connection, signal } = options
  const client = connection.client(AgentDefinition)
  const parents = new Set(entries.map(({ parentId }) => idText(parentId)).filter(isAgent))
  const notes: string[] = []
  for (const parent of [...parents].slice(0, maxParents)) {
    try {
      await client.getAgent({ id: wireId(parent) }, { signal })
    } catch (error) {
      if (!(error instanceof AssayError)) throw error
      // Who may make entries need not be allowed to look at nodes.
      if (error.code === 'permission-denied') return []
      if (error.code !== 'not-found') throw error
      notes.push(`note: no agent ${parent} has attested yet`)
    }
  }
  if (notes.length === 0) return []
  const { agents } = await client.listAgents({ pageSize: 3 }, { signal })
  const known = agents.map(({ id }) => `  ${idText(id)}`)
  return known.length === 0 ? notes : [...notes, 'agents that have are, among others:', ...known]
}
