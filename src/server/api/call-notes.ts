import type { CallContext } from '#rpc/call.ts'

/** What a handler tells about its call for the audit record: facts that only it knows. Never a secret. */
export interface CallNotes {
  /** Whom or what it is about: an agent ID, entry id or endorsement key hash. */
  subject?: string
  /** Only attestations have it. */
  attestationType?: string
  /** What needs the approval of others, in words; the id of that request; who agreed to it. */
  asked?: string
  approval?: string
  approvedBy?: readonly string[]
  /** Serials and entry ids of what was issued, numbers of items that failed. */
  details?: Readonly<Record<string, unknown>>
}

const notes = new WeakMap<CallContext, CallNotes>()

/** The notes of a call, to be added to. */
export function notesOf(context: CallContext): CallNotes {
  let known = notes.get(context)
  if (known === undefined) {
    known = {}
    notes.set(context, known)
  }
  return known
}
