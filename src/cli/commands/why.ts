import {
  DiagnosisDefinition,
  type ExplainRequest,
  type Explanation,
} from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import {
  type Command,
  type CommandContext,
  integer,
  nowSeconds,
  optional,
  UsageError,
} from '../command.ts'
import { agentAdministrationOptions, connectAgentAdministration } from '../daemons.ts'
import { blocks, timeLeftText, timeValue } from '../print.ts'
import { agentStatusRecord, refusalRecord } from '../wire.ts'

const explanationRecord = (explanation: Explanation) => ({
  selectors: explanation.selectors,
  matches: explanation.matches.map((match) => ({
    entry_id: match.entryId,
    spiffe_id: match.spiffeId,
    hint: match.hint,
    x509_svid_expires_at: timeValue(match.x509SvidExpiresAt),
  })),
  near_misses: explanation.nearMisses.map(({ entryId, spiffeId, missing }) => ({
    entry_id: entryId,
    spiffe_id: spiffeId,
    missing,
  })),
  entries: explanation.entries,
  ...(explanation.agent !== undefined && { agent: agentStatusRecord(explanation.agent) }),
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

function identityLines({ matches, entries }: Explanation, now: number): readonly string[] {
  if (matches.length === 0) {
    return [
      entries === 0
        ? 'It gets nothing: this node has no entries.'
        : `It gets nothing: no entry of this node matches (it has ${entries}).`,
    ]
  }
  return [
    'It gets:',
    ...matches.flatMap(({ spiffeId, hint, entryId, x509SvidExpiresAt: expiresAt }) => [
      `  ${spiffeId}${hint === '' ? '' : ` (${hint})`}`,
      `    entry ${entryId}, ${expiresAt === 0 ? 'no SVID is held yet' : `SVID until ${timeLeftText(expiresAt, now)}`}`,
    ]),
  ]
}

function nearMissLines({ matches, nearMisses }: Explanation): readonly string[] {
  if (matches.length > 0 || nearMisses.length === 0) return []
  return [
    'Nearest entries, and what they want that it does not show:',
    ...nearMisses.flatMap(({ spiffeId, entryId, missing }) => [
      `  ${spiffeId}`,
      `    entry ${entryId}`,
      ...missing.map((selector) => `    lacks ${selector}`),
    ]),
  ]
}

function printExplanation(context: CommandContext, explanation: Explanation): void {
  const now = nowSeconds(context)
  const { refusal, agent, selectors } = explanation
  const groups = [
    refusal === undefined
      ? []
      : [
          `Process ${refusal.pid} of user ${refusal.uid} was refused ${refusal.method}: ${refusal.reason}`,
          `at ${timeLeftText(refusal.at, now)}`,
        ],
    selectors.length === 0
      ? ['It shows no selectors.']
      : ['It shows:', ...selectors.map((selector) => `  ${selector}`)],
    identityLines(explanation, now),
    nearMissLines(explanation),
    agent === undefined || agent.state === 'ready'
      ? []
      : [`The agent is ${agent.state}${agent.detail === '' ? '' : `: ${agent.detail}`}`],
  ]
  for (const line of blocks(groups)) context.print(line)
}

const why: Command = {
  name: 'why',
  summary: 'why a process gets the identities it gets, or none',
  options: [
    { name: 'pid', value: 'NUMBER', summary: 'a process that runs now' },
    { name: 'user', value: 'NAME', summary: 'any process of this Unix user, by name or number' },
    { name: 'request', value: 'ID', summary: "the request id in a refused workload's error" },
    ...agentAdministrationOptions,
  ],
  details: `
Shows the selectors that were found, the entries that match, and the entries that nearly do with what they lack.
Exit status 4 when no identity is issued.`,
  async run(context) {
    const subject = subjectOf(context)
    using connection = await connectAgentAdministration(context)
    const explanation = await connection
      .client(DiagnosisDefinition)
      .explain(subject, { signal: context.signal })
    if (context.json) context.print(JSON.stringify(explanationRecord(explanation)))
    else printExplanation(context, explanation)
    if (explanation.matches.length === 0) context.setStatus(4)
  },
}

export const commands: readonly Command[] = [why]
