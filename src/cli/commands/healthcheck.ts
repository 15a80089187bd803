import { AssayError } from '#base/errors.ts'
import type { Connection } from '#rpc/client.ts'
import { DiagnosisDefinition } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import {
  HealthCheckResponse_ServingStatus,
  HealthDefinition,
} from '#rpc/gen/grpc/health/v1/health.ts'
import { type Command, type CommandContext, isOn } from '../command.ts'
import {
  administrationOptions,
  connectAgent,
  connectAgentAdministration,
  connectServer,
} from '../daemons.ts'

/** What keeps the server from issuing; empty when it is something else. */
async function whyServer({ signal }: CommandContext, connection: Connection): Promise<string> {
  return (await connection.client(KeysDefinition).getStatus({}, { signal })).detail
}

/** The administration socket is not open to everybody who may ask for the agent's health. */
async function whyAgent(context: CommandContext): Promise<string | undefined> {
  try {
    using connection = await connectAgentAdministration(context)
    const { signal } = context
    return (await connection.client(DiagnosisDefinition).getStatus({}, { signal })).detail
  } catch (error) {
    if (!(error instanceof AssayError)) throw error
    context.signal.throwIfAborted()
    return undefined
  }
}

const check: Command = {
  name: 'healthcheck',
  summary: 'whether the server or, with --agent, the agent is well',
  options: [
    { name: 'agent', summary: 'ask the agent, on its Workload API socket' },
    ...administrationOptions,
  ],
  details: `
The server is well when it is ready, as /ready says. Exit status 0 when it is, 6 with the reason when it is not, 5 when
it does not answer.`,
  async run(context) {
    const agent = isOn(context, 'agent')
    using connection = agent ? await connectAgent(context) : await connectServer(context)
    const answer = await connection
      .client(HealthDefinition)
      .check({ service: '' }, { signal: context.signal })
    const healthy = answer.status === HealthCheckResponse_ServingStatus.SERVING
    const name = agent ? 'agent' : 'server'
    if (healthy) {
      context.print(context.json ? JSON.stringify({ healthy }) : `the ${name} is healthy`)
      return
    }
    context.setStatus(6)
    const detail = (await (agent ? whyAgent(context) : whyServer(context, connection))) ?? ''
    if (context.json) return context.print(JSON.stringify({ healthy, detail }))
    context.print(`the ${name} is not serving: ${detail || 'its log says why'}`)
  },
}

export const commands: readonly Command[] = [check]
