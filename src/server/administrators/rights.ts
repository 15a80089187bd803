import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import { type CallSelection, calls } from './calls.ts'

/** One reason why somebody may administer, and how far. */
export interface Grant {
  /** What gave it, for audit records: `root`, `unix_group assay-operators`. */
  readonly by: string
  readonly calls: CallSelection
  /** Undefined: whatever SPIFFE ID it is about. */
  readonly prefixes: readonly SpiffeId[] | undefined
}

/** What a grant comes to for one method. */
export type Permission = Pick<Grant, 'by' | 'prefixes'>

/** What one administrator may do: all that any of their grants allows. */
export class Rights {
  /** Whose they are, for people: `alice`, `uid 1000`, a SPIFFE ID. */
  readonly holder: string
  readonly #grants: readonly Grant[]

  constructor(holder: string, grants: readonly Grant[]) {
    this.holder = holder
    this.#grants = grants
  }

  /** Everything. Only who has all rights may give rights to somebody. */
  get areAll(): boolean {
    return this.#grants.some((grant) => grant.calls === 'all' && grant.prefixes === undefined)
  }

  get areNone(): boolean {
    return this.#grants.length === 0
  }

  /** By what they may call a method and about which SPIFFE IDs; undefined when they may not. */
  permission(method: string): Permission | undefined {
    const traits = calls.get(method)
    const allowing = this.#grants.filter(
      (grant) =>
        grant.calls === 'all' || grant.calls.has(method) || traits?.set === 'administrator',
    )
    const wide = allowing.find(({ prefixes }) => prefixes === undefined)
    if (wide !== undefined) return { by: wide.by, prefixes: undefined }
    const [first] = allowing
    if (first === undefined || traits?.narrows !== true) return undefined
    return {
      by: [...new Set(allowing.map(({ by }) => by))].join(', '),
      prefixes: allowing.flatMap(({ prefixes }) => prefixes ?? []),
    }
  }

  /** They could call the method if they were not kept to SPIFFE ID prefixes. */
  isTooNarrowFor(method: string): boolean {
    const named = this.#grants.some(
      (grant) =>
        grant.calls === 'all' ||
        grant.calls.has(method) ||
        calls.get(method)?.set === 'administrator',
    )
    return named && this.permission(method) === undefined
  }
}

/** Whether an ID is one of `prefixes` or below one, by whole path segments; always, when there are none. */
export function isCovered(id: SpiffeId, prefixes: readonly SpiffeId[] | undefined): boolean {
  if (prefixes === undefined) return true
  return prefixes.some((prefix) => id === prefix || id.startsWith(`${prefix}/`))
}
