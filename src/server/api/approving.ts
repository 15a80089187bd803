import { createHash } from 'node:crypto'
import { AssayError } from '#base/errors.ts'
import type { Interceptor } from '#rpc/service.ts'
import type { Approvals } from '../administrators/approvals.ts'
import { type CallSet, callSets, calls } from '../administrators/calls.ts'
import { notesOf } from './call-notes.ts'
import { callerOf, markApproved, personOf } from './caller.ts'
import { canonicalJson, requestForPeople, verifyShownWhole, words } from './request-in-words.ts'
import type { RequestJudge } from './request-judge.ts'

/** How many administrators have to agree to what changes something in each set, who asks included. */
export type NeededApprovals = Readonly<Partial<Record<CallSet, number>>>

/** The most that any set needs. */
export const mostNeeded = (needed: NeededApprovals): number =>
  Math.max(1, ...callSets.map((set) => needed[set] ?? 1))

const rotate = '/assay.server.v1.Keys/Rotate'
const setState = '/assay.server.v1.Inventory/SetState'
/** It tries a PIN that whoever may write the PIN file has put there, and changes no authority. */
const resume = '/assay.server.v1.Keys/Resume'
const forget = '/assay.server.v1.Inventory/Delete'

/** Makes calls wait for the agreement of others. It stands behind authorization, which says whose call it is. */
export function approving({
  approvals,
  needed,
  judge,
}: {
  readonly approvals: Approvals
  readonly needed: NeededApprovals
  readonly judge: RequestJudge
}): Interceptor {
  const most = mostNeeded(needed)
  return async (call, next) => {
    const { context } = call
    const caller = callerOf(context)
    if (most === 1 || (caller?.class !== 'local' && caller?.class !== 'admin')) return next()
    const { method } = context
    const traits = calls.get(method)
    if (traits?.reads || traits?.set === 'administrator' || method === resume) return next()
    const { request } = call
    const isPrivileged = await judge.givesRights(method, request)
    const also = await judge.alsoCountsAs(method, request)
    const count = isPrivileged
      ? most
      : Math.max(
          agreeing(traits?.set, method, request),
          also === undefined ? 1 : (needed[also] ?? 1),
        )
    if (count === 1) return next()
    // A rotation that lost its stream says which one it goes on with.
    const asked = method === rotate ? { ...(request as object), predecessorId: '' } : request
    const hash = createHash('sha256')
      .update(`${method}\n${canonicalJson(asked)}`)
      .digest('hex')
    const what = words(method, request)
    const notes = notesOf(context)
    notes.asked = what
    if (isPrivileged) verifyShownWhole(method, asked)
    verifyWholeHash(method, request)
    const use = approvals.use({
      method,
      hash,
      what,
      request: requestForPeople(asked),
      requester: personOf(context),
      needed: count - 1,
      isPrivileged,
      isResumable: method === rotate,
    })
    notes.approval = use.approval.id
    notes.approvedBy = use.approval.approvers.map(({ name }) => name)
    // What was agreed to as giving nobody rights must not give any when it comes to it.
    if (isPrivileged) markApproved(context)
    let wentWell = false
    try {
      await next()
      wentWell = true
    } finally {
      // A rotation that is over is over, also for who did not wait to be told.
      use.end(wentWell || notes.details?.['step'] === 'done')
    }
  }

  function agreeing(set: string | undefined, method: string, request: unknown): number {
    // A method nobody has classified may do anything.
    if (set === undefined || !isSet(set)) return most
    return judge.onlyTakesAway(method, request) ? 1 : (needed[set] ?? 1)
  }
}

/** The first digits of a hash may come to mean another TPM after others have agreed. */
function verifyWholeHash(method: string, request: unknown): void {
  if (method !== setState && method !== forget) return
  const { endorsementKeyHash: hash } = request as { readonly endorsementKeyHash: string }
  if (/^[0-9a-f]{64}$/.test(hash)) return
  throw new AssayError(
    'failed-precondition',
    `cannot ask for approval to ${words(method, request)}: its first digits could mean another TPM later; give all 64, which 'assay inventory list' shows`,
    { reason: 'approval-whole-hash' },
  )
}

const isSet = (name: string): name is CallSet => callSets.some((set) => set === name)
