import { parseSelector } from '#spiffe/selector.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import type { AgentEntry } from './agent-entry.ts'

/** An entry for tests: `spiffe://example.org/<id>` for user 1000, unless told otherwise. */
export function agentEntry(
  id: string,
  {
    selectors = ['unix:uid:1000'],
    ...fields
  }: { readonly selectors?: readonly string[] } & Partial<Omit<AgentEntry, 'selectors'>> = {},
): AgentEntry {
  return {
    id,
    spiffeId: parseSpiffeId(`spiffe://example.org/${id}`),
    selectors: selectors.map(parseSelector),
    federatesWith: [],
    admin: false,
    downstream: false,
    storeSvid: false,
    hint: '',
    revisionNumber: 0,
    createdAtSeconds: 1,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
    ...fields,
  }
}
