import { type Selector, selectorType } from '#spiffe/selector.ts'
import type { AgentEntry } from './agent-entry.ts'

/** Whether a selector asks what program a process runs. */
function asksForProgram(selector: Selector): boolean {
  return selectorType(selector) === 'unix' && /^unix:(path|sha256):/.test(selector)
}

/** Counts the entries that ask for the program of a process, so that it is looked at only while there are some. */
export class ProgramSelectors {
  readonly #entryIds = new Set<string>()

  get areUsed(): boolean {
    return this.#entryIds.size > 0
  }

  set(entry: AgentEntry): void {
    if (entry.selectors.some(asksForProgram)) this.#entryIds.add(entry.id)
    else this.#entryIds.delete(entry.id)
  }

  delete(entryId: string): void {
    this.#entryIds.delete(entryId)
  }
}
