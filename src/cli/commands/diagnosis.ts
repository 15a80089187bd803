import process from 'node:process'
import { AssayError } from '#base/errors.ts'
import {
  DiagnosisDefinition,
  type ExplainRequest,
  type Explanation,
  type Refusal,
  type Status,
} from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { RefusalsDefinition } from '#rpc/gen/assay/server/v1/refusals.ts'
import {
  HealthCheckResponse_ServingStatus,
  HealthDefinition,
} from '#rpc/gen/grpc/health/v1/health.ts'
import { connectEndpoint } from '#workload-client/connect-endpoint.ts'
import {
  type Command,
  type CommandContext,
  integer,
  nowSeconds,
  optional,
  UsageError,
} from '../command.ts'
import {
  agentAdministrationOptions,
  agentOptions,
  connectAgentAdministration,
  connectServer,
  serverOptions,
  workloadEndpoint,
} from '../daemons.ts'
import { fields, table, timeLeftText, timeText } from '../print.ts'

const statusRecord = (status: Status) => ({
  state: status.state,
  detail: status.detail,
  agent_id: status.agentId,
  agent_svid_expires_at: timeText(status.agentSvidExpiresAt),
  last_sync_at: timeText(status.lastSyncAt),
  revision: String(status.revision),
  node_attestor: status.nodeAttestor,
  node_attestor_detail: status.nodeAttestorDetail,
  entries: status.entries,
  x509_svids: status.x509Svids,
  jwt_svids: status.jwtSvids,
  streams: status.streams,
})

const refusalRecord = (refusal: Refusal) => ({
  at: timeText(refusal.at),
  request_id: refusal.requestId,
  method: refusal.method,
  pid: refusal.pid,
  uid: refusal.uid,
  gid: refusal.gid,
  selectors: refusal.selectors,
  reason: refusal.reason,
})

const explanationRecord = (explanation: Explanation) => ({
  selectors: explanation.selectors,
  matches: explanation.matches.map((match) => ({
    entry_id: match.entryId,
    spiffe_id: match.spiffeId,
    hint: match.hint,
    x509_svid_expires_at: timeText(match.x509SvidExpiresAt),
  })),
  near_misses: explanation.nearMisses.map(({ entryId, spiffeId, missing }) => ({
    entry_id: entryId,
    spiffe_id: spiffeId,
    missing,
  })),
  entries: explanation.entries,
  ...(explanation.agent !== undefined && { agent: statusRecord(explanation.agent) }),
  ...(explanation.refusal !== undefined && { refusal: refusalRecord(explanation.refusal) }),
})

function subjectOf(context: CommandContext): ExplainRequest {
  const pid = optional(context, 'pid')
  const user = optional(context, 'user')
  const requestId = optional(context, 'request')
  const given = [pid, user, requestId].filter((one) => one !== undefined)
  if (given.length !== 1)
    throw new UsageError("'assay why' needs one of --pid, --user and --request")
  if (pid !== undefined) {
    return {
      subject: { $case: 'pid', value: integer(context, 'pid', { otherwise: 0, minimum: 1 }) },
    }
  }
  if (user !== undefined) return { subject: { $case: 'user', value: user } }
  return { subject: { $case: 'requestId', value: requestId ?? '' } }
}

function printExplanation(context: CommandContext, explanation: Explanation): void {
  const now = nowSeconds(context)
  const { refusal, agent } = explanation
  if (refusal !== undefined) {
    context.print(
      `${timeText(refusal.at)}: process ${refusal.pid} of user ${refusal.uid} was refused ${refusal.method}: ${refusal.reason}`,
    )
    context.print('')
  }
  context.print('It shows:')
  for (const selector of explanation.selectors) context.print(`  ${selector}`)
  context.print('')
  if (explanation.matches.length > 0) {
    context.print('It gets:')
    for (const match of explanation.matches) {
      const expires =
        match.x509SvidExpiresAt === 0
          ? 'no SVID is held yet'
          : `SVID until ${timeLeftText(match.x509SvidExpiresAt, now)}`
      context.print(
        `  ${match.spiffeId}${match.hint === '' ? '' : ` (${match.hint})`}  entry ${match.entryId}, ${expires}`,
      )
    }
  } else {
    context.print(
      `It gets nothing: none of the ${explanation.entries} entries of this node matches.`,
    )
  }
  if (explanation.matches.length === 0 && explanation.nearMisses.length > 0) {
    context.print('')
    context.print('Nearest entries, and what they want that it does not show:')
    for (const miss of explanation.nearMisses) {
      context.print(`  ${miss.spiffeId}  entry ${miss.entryId}`)
      for (const selector of miss.missing) context.print(`    lacks ${selector}`)
    }
  }
  if (agent !== undefined && agent.state !== 'ready') {
    context.print('')
    context.print(`The agent is ${agent.state}${agent.detail === '' ? '' : `: ${agent.detail}`}`)
  }
}

const why: Command = {
  name: 'why',
  summary: 'why a process gets the identities it gets, or none',
  options: [
    ...agentAdministrationOptions,
    { name: 'pid', value: 'NUMBER', summary: 'a process that runs now' },
    { name: 'user', value: 'NAME', summary: 'any process of this Unix user, by name or number' },
    { name: 'request', value: 'ID', summary: "the request id in a refused workload's error" },
  ],
  details: `
Shows the selectors that were found, the entries that match, and the entries that nearly do with what they lack.
Exit status 4 when no identity is issued.`,
  async run(context) {
    const subject = subjectOf(context)
    using connection = connectAgentAdministration(context)
    const explanation = await connection
      .client(DiagnosisDefinition)
      .explain(subject, { signal: context.signal })
    if (context.json) context.print(JSON.stringify(explanationRecord(explanation)))
    else printExplanation(context, explanation)
    if (explanation.matches.length === 0) process.exitCode = 4
  },
}

const agentRefusals: Command = {
  name: 'refusal list',
  summary: 'the last Workload API calls and attestations that were refused',
  options: [
    ...serverOptions,
    ...agentAdministrationOptions,
    {
      name: 'server',
      summary: 'attestations the server refused, instead of calls this agent refused',
    },
    { name: 'limit', value: 'NUMBER', summary: 'at most this many, newest first; 20 when absent' },
  ],
  async run(context) {
    const limit = integer(context, 'limit', { otherwise: 20, minimum: 1 })
    if (context.switches.has('server')) {
      using connection = connectServer(context)
      const { refusals } = await connection
        .client(RefusalsDefinition)
        .list({ limit }, { signal: context.signal })
      if (context.json)
        return context.print(
          JSON.stringify(refusals.map((one) => ({ ...one, at: timeText(one.at) }))),
        )
      const rows = refusals.map((one) => [
        timeText(one.at),
        one.address,
        one.attestationType,
        one.reason,
        one.message,
      ])
      for (const line of table(['at', 'address', 'type', 'reason', 'message'], rows))
        context.print(line)
      return
    }
    using connection = connectAgentAdministration(context)
    const { refusals } = await connection
      .client(DiagnosisDefinition)
      .listRefusals({ limit }, { signal: context.signal })
    if (context.json) return context.print(JSON.stringify(refusals.map(refusalRecord)))
    const rows = refusals.map((one) => [
      timeText(one.at),
      String(one.pid),
      String(one.uid),
      one.reason,
      one.requestId,
    ])
    for (const line of table(['at', 'pid', 'uid', 'reason', 'request'], rows)) context.print(line)
  },
}

const agentStatus: Command = {
  name: 'agent status',
  summary: 'what the agent on this machine does, and whether it is well',
  options: agentAdministrationOptions,
  details: 'Exit status 6 when it is not ready.',
  async run(context) {
    using connection = connectAgentAdministration(context)
    const status = await connection
      .client(DiagnosisDefinition)
      .getStatus({}, { signal: context.signal })
    if (status.state !== 'ready') process.exitCode = 6
    if (context.json) return context.print(JSON.stringify(statusRecord(status)))
    const now = nowSeconds(context)
    for (const line of fields([
      ['State', status.state],
      ['Why', status.detail],
      ['Agent', status.agentId],
      ['SVID until', timeLeftText(status.agentSvidExpiresAt, now)],
      ['Last sync', timeLeftText(status.lastSyncAt, now)],
      ['Node attestor', `${status.nodeAttestor} ${status.nodeAttestorDetail}`.trim()],
      ['Entries', String(status.entries)],
      ['X.509-SVIDs', String(status.x509Svids)],
      ['JWT-SVIDs', String(status.jwtSvids)],
      ['Open streams', String(status.streams)],
    ])) {
      context.print(line)
    }
  },
}

const healthcheck: Command = {
  name: 'healthcheck',
  summary: 'whether the server or, with --agent, the agent is well',
  options: [
    ...serverOptions,
    ...agentOptions.slice(1),
    { name: 'agent', summary: 'ask the agent' },
  ],
  details: 'Exit status 0 when it is, 6 when it says it is not, 5 when it does not answer.',
  async run(context) {
    const agent = context.switches.has('agent')
    using connection = agent
      ? connectEndpoint(workloadEndpoint(context), context.clock)
      : connectServer(context)
    const answer = await connection
      .client(HealthDefinition)
      .check(
        { service: '' },
        { signal: AbortSignal.any([context.signal, AbortSignal.timeout(10_000)]) },
      )
    const healthy = answer.status === HealthCheckResponse_ServingStatus.SERVING
    const name = agent ? 'agent' : 'server'
    if (context.json) context.print(JSON.stringify({ healthy }))
    if (!healthy)
      throw new AssayError('failed-precondition', `the ${name} says that it is not serving`)
    if (!context.json) context.print(`the ${name} is healthy`)
  },
}

export const diagnosisCommands: readonly Command[] = [why, agentStatus, agentRefusals, healthcheck]
