import {
  HealthCheckResponse_ServingStatus,
  HealthDefinition,
} from '#rpc/gen/grpc/health/v1/health.ts'
import { type Command, isOn } from '../command.ts'
import { connectAgent, connectServer, serverOptions } from '../daemons.ts'

const check: Command = {
  name: 'healthcheck',
  summary: 'whether the server or, with --agent, the agent is well',
  options: [
    { name: 'agent', summary: 'ask the agent, on its Workload API socket' },
    ...serverOptions,
  ],
  details: 'Exit status 0 when it is, 6 when it says it is not, 5 when it does not answer.',
  async run(context) {
    const agent = isOn(context, 'agent')
    using connection = agent ? await connectAgent(context) : await connectServer(context)
    const answer = await connection
      .client(HealthDefinition)
      .check({ service: '' }, { signal: context.signal })
    const healthy = answer.status === HealthCheckResponse_ServingStatus.SERVING
    const name = agent ? 'agent' : 'server'
    if (!healthy) context.setStatus(6)
    if (context.json) context.print(JSON.stringify({ healthy }))
    else context.print(`the ${name} is ${healthy ? 'healthy' : 'not serving'}`)
  },
}

export const commands: readonly Command[] = [check]
