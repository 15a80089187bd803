import { type Approval, ApprovalsDefinition } from '#rpc/gen/assay/server/v1/approvals.ts'
import { type Command, type CommandContext, nowSeconds, UsageError } from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { count, fields, table, timeLeftText, timeValue } from '../print.ts'

const record = (approval: Approval) => ({
  id: approval.id,
  state: approval.state,
  what: approval.what,
  gives_rights: approval.givesRights,
  method: approval.method,
  request: approval.request,
  request_sha256: approval.requestSha256,
  requester: approval.requester,
  approvers: approval.approvers,
  ...(approval.deniedBy !== '' && { denied_by: approval.deniedBy }),
  missing: approval.missing,
  requested_at: timeValue(approval.requestedAt),
  expires_at: timeValue(approval.expiresAt),
})

const list: Command = {
  name: 'approval list',
  summary: 'what administrators asked for and others have to agree to',
  options: serverOptions,
  async run(context) {
    using connection = await connectServer(context)
    const { approvals } = await connection
      .client(ApprovalsDefinition)
      .list({}, { signal: context.signal })
    if (context.json) return context.print(JSON.stringify(approvals.map(record)))
    const now = nowSeconds(context)
    const rows = approvals.map((one) => [
      one.id,
      one.state,
      one.requester,
      timeLeftText(one.expiresAt, now),
      one.what,
    ])
    if (rows.length > 0) {
      for (const line of table(['request', 'state', 'by', 'expires', 'what'], rows)) {
        context.print(line)
      }
    }
    context.note(count(rows.length, 'request'))
  },
}

const show: Command = {
  name: 'approval show',
  summary: 'one request: who asked for what, and who agreed',
  positionals: 'ID',
  options: serverOptions,
  async run(context) {
    using connection = await connectServer(context)
    const client = connection.client(ApprovalsDefinition)
    const approval = await client.get({ id: idOf(context, 'show') }, { signal: context.signal })
    if (context.json) context.print(JSON.stringify(record(approval)))
    else print(context, approval)
  },
}

const approve: Command = {
  name: 'approval approve',
  summary: 'agree to what another administrator asked for',
  positionals: 'ID',
  options: serverOptions,
  details: `Look at it first: 'assay approval show ID'. Whoever asked for it then runs their command once more, within a day.
Call it as yourself: with sudo everybody is root.`,
  async run(context) {
    using connection = await connectServer(context)
    const client = connection.client(ApprovalsDefinition)
    const approval = await client.approve(
      { id: idOf(context, 'approve') },
      { signal: context.signal },
    )
    if (context.json) return context.print(JSON.stringify(record(approval)))
    context.print(`agreed to ${approval.id}: ${approval.what}`)
    context.note(
      approval.missing > 0
        ? `${count(approval.missing, 'more administrator')} must agree`
        : `${approval.requester} can now run the command once more`,
    )
  },
}

const deny: Command = {
  name: 'approval deny',
  summary: 'refuse what another administrator asked for, or take back what you asked for',
  positionals: 'ID',
  options: serverOptions,
  async run(context) {
    using connection = await connectServer(context)
    const client = connection.client(ApprovalsDefinition)
    const approval = await client.deny({ id: idOf(context, 'deny') }, { signal: context.signal })
    context.print(
      context.json ? JSON.stringify(record(approval)) : `denied ${approval.id}: ${approval.what}`,
    )
  },
}

function idOf(context: CommandContext, verb: string): string {
  const [id] = context.positionals
  if (id === undefined) {
    throw new UsageError(`'assay approval ${verb}' needs an ID; see 'assay approval list'`)
  }
  return id.toLowerCase()
}

function print(context: CommandContext, approval: Approval): void {
  const now = nowSeconds(context)
  for (const line of fields([
    ['Request', approval.id],
    ['What', approval.what],
    ['Gives rights', approval.givesRights ? 'yes: somebody could come to have rights by it' : 'no'],
    ['Asked by', approval.requester],
    ['State', approval.state],
    ['Agreed', approval.approvers.join(', ')],
    ['Denied by', approval.deniedBy],
    ['Still missing', approval.missing > 0 ? String(approval.missing) : ''],
    ['Asked', timeLeftText(approval.requestedAt, now)],
    ['Expires', timeLeftText(approval.expiresAt, now)],
    ['Method', approval.method],
    ['Content', approval.request],
    ['SHA-256', approval.requestSha256],
  ])) {
    context.print(line)
  }
}

export const commands: readonly Command[] = [list, show, approve, deny]
