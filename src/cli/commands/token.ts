import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { type Command, nowSeconds, optional, seconds } from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { timeLeftText, timeValue } from '../print.ts'
import { wireId } from '../wire.ts'

const generate: Command = {
  name: 'token generate',
  summary: 'make a secret that lets one machine without a TPM join once',
  options: [
    { name: 'ttl', value: 'DURATION', summary: 'how long it can be used; 10m when absent' },
    {
      name: 'spiffe-id',
      value: 'ID',
      summary: 'gives the joining agent this identity beside its own',
    },
    ...serverOptions,
  ],
  async run(context) {
    using connection = await connectServer(context)
    const spiffeId = optional(context, 'spiffe-id')
    const request = {
      ttl: seconds(context, 'ttl', 600),
      ...(spiffeId !== undefined && { agentId: wireId(spiffeId) }),
    }
    const token = await connection
      .client(AgentDefinition)
      .createJoinToken(request, { signal: context.signal })
    if (context.json) {
      const expiry = timeValue(token.expiresAt)
      return context.print(JSON.stringify({ token: token.value, expires_at: expiry }))
    }
    context.print(token.value)
    context.note(`for one agent, until ${timeLeftText(token.expiresAt, nowSeconds(context))}`)
    context.note(
      'in its agent.yaml: node_attestor: { join_token: { token_file: FILE } }, FILE with mode 0600',
    )
    if (spiffeId === undefined) {
      context.note(
        'its only name will be …/spire/agent/join_token/TOKEN; --spiffe-id gives it one that outlives the token',
      )
    }
  },
}

export const commands: readonly Command[] = [generate]
