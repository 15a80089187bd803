import { DiagnosisDefinition } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { type Refusal, RefusalsDefinition } from '#rpc/gen/assay/server/v1/refusals.ts'
import { type Command, type CommandContext, integer, isOn } from '../command.ts'
import { administrationOptions, connectAgentAdministration, connectServer } from '../daemons.ts'
import { count, table, timeText, timeValue } from '../print.ts'
import { refusalRecord } from '../wire.ts'

const attestationRecord = (refusal: Refusal) => ({
  at: timeValue(refusal.at),
  request_id: refusal.requestId,
  address: refusal.address,
  attestation_type: refusal.attestationType,
  subject: refusal.subject,
  reason: refusal.reason,
  message: refusal.message,
})

function printTable(
  context: CommandContext,
  headings: readonly string[],
  rows: readonly (readonly string[])[],
): void {
  if (rows.length > 0) for (const line of table(headings, rows)) context.print(line)
  context.note(count(rows.length, 'refusal'))
}

const list: Command = {
  name: 'refusal list',
  summary: 'the last Workload API calls and attestations that were refused',
  options: [
    {
      name: 'server',
      summary: 'attestations the server refused, instead of calls this agent refused',
    },
    { name: 'limit', value: 'NUMBER', summary: 'at most this many, newest first; 20 when absent' },
    ...administrationOptions,
  ],
  details: `
The agent and the server each remember their last refusals while they run.`,
  async run(context) {
    const limit = integer(context, 'limit', { otherwise: 20, minimum: 1 })
    if (isOn(context, 'server')) {
      using connection = await connectServer(context)
      const { refusals } = await connection
        .client(RefusalsDefinition)
        .list({ limit }, { signal: context.signal })
      if (context.json) return context.print(JSON.stringify(refusals.map(attestationRecord)))
      const rows = refusals.map((one) => [
        timeText(one.at),
        one.address,
        one.attestationType,
        one.reason,
        one.message,
      ])
      return printTable(context, ['at', 'address', 'type', 'reason', 'message'], rows)
    }
    using connection = await connectAgentAdministration(context)
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
    printTable(context, ['at', 'pid', 'uid', 'reason', 'request'], rows)
    if (rows.length > 0) context.note("'assay why --request REQUEST' explains one")
  },
}

export const commands: readonly Command[] = [list]
