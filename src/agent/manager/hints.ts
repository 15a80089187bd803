import { type AgentEntry, byEntryId } from './agent-entry.ts'

/**
 * At most one entry for each hint that is not empty: the oldest, of two of the same second the one with the lower
 * id (SPIFFE Workload API §5.2.1 wants hints to be unique in a response). The order is kept.
 */
export function withUniqueHints(entries: readonly AgentEntry[]): readonly AgentEntry[] {
  const winners = new Map<string, AgentEntry>()
  for (const entry of entries) {
    if (entry.hint === '') continue
    const rival = winners.get(entry.hint)
    if (rival === undefined || isOlder(entry, rival)) winners.set(entry.hint, entry)
  }
  return entries.filter((entry) => entry.hint === '' || winners.get(entry.hint) === entry)
}

function isOlder(a: AgentEntry, b: AgentEntry): boolean {
  return a.createdAtSeconds === b.createdAtSeconds
    ? byEntryId(a, b) < 0
    : a.createdAtSeconds < b.createdAtSeconds
}
