import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import type {
  Approval as ApprovalMessage,
  ApproveRequest,
  DenyRequest,
  GetApprovalRequest,
  ListApprovalsRequest,
} from '#rpc/gen/assay/server/v1/approvals.ts'
import { type Approval, type Approvals, missingOf } from '../administrators/approvals.ts'
import { notesOf } from './call-notes.ts'
import { personOf, rightsOf } from './caller.ts'
import { denied } from './denied.ts'

/** `assay.server.v1.Approvals`: administrators decide about each other's calls. */
export function newApprovalsService(approvals: Approvals) {
  return {
    async list(_request: ListApprovalsRequest, context: CallContext) {
      const seen = approvals.list().filter((approval) => mayShow(context, approval))
      return { approvals: seen.map(approvalMessage) }
    },

    async get({ id }: GetApprovalRequest, context: CallContext) {
      return approvalMessage(shown(context, id))
    },

    async approve({ id }: ApproveRequest, context: CallContext) {
      const approval = shown(context, id)
      note(context, approval)
      const rights = rightsOf(context)
      if (approval.isPrivileged && !rights.areAll) {
        throw denied(context.method, {
          reason: 'needs-all-rights',
          why: `by request ${id} somebody could come to have rights; ${rights.holder} has not all rights, and this needs an administrator who has`,
        })
      }
      return approvalMessage(approvals.approve(id, personOf(context)))
    },

    async deny({ id }: DenyRequest, context: CallContext) {
      note(context, shown(context, id))
      return approvalMessage(approvals.deny(id, personOf(context)))
    },
  }

  /** What one may not see is as if it were not there. */
  function shown(context: CallContext, id: string): Approval {
    const approval = approvals.get(id)
    if (approval !== undefined && mayShow(context, approval)) return approval
    throw new AssayError(
      'not-found',
      `no request ${JSON.stringify(id.slice(0, 64))} that is yours to see waits for approval; 'assay approval list' shows those that are`,
      { reason: 'approval-not-found' },
    )
  }
}

/** One decides about what one could call oneself, whatever it is about. */
function mayShow(context: CallContext, { method, requester }: Approval): boolean {
  if (requester.key === personOf(context).key) return true
  const permission = rightsOf(context).permission(method)
  return permission !== undefined && permission.prefixes === undefined
}

function note(context: CallContext, { id, method, what, requester, hash }: Approval): void {
  const notes = notesOf(context)
  notes.subject = id
  notes.details = { asked: method, what, requester: requester.name, request: hash }
}

const approvalMessage = (approval: Approval): ApprovalMessage => ({
  id: approval.id,
  state: approval.state,
  what: approval.what,
  method: approval.method,
  request: approval.request,
  requestSha256: approval.hash,
  requester: approval.requester.name,
  approvers: approval.approvers.map(({ name }) => name),
  deniedBy: approval.deniedBy?.name ?? '',
  missing: missingOf(approval),
  requestedAt: approval.requestedAtSeconds,
  expiresAt: approval.expiresAtSeconds,
  givesRights: approval.isPrivileged,
})
