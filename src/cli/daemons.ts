import { type Connection, connectUnix } from '#rpc/client.ts'
import { type CommandContext, type Option, optional } from './command.ts'

/** Options of commands that talk to the server. */
export const serverOptions: readonly Option[] = [
  { name: 'socket-path', value: 'PATH', summary: "the server's administration socket" },
]

/** Options of commands that talk to the Workload API. */
export const agentOptions: readonly Option[] = [
  { name: 'socket-path', value: 'PATH', summary: "the agent's Workload API socket" },
]

/** Options of commands that talk to the agent's administration socket. */
export const agentAdministrationOptions: readonly Option[] = [
  { name: 'admin-socket-path', value: 'PATH', summary: "the agent's administration socket" },
]

/** The server's administration API. The caller disposes of the connection. */
export function connectServer(context: CommandContext): Connection {
  return connectUnix(
    optional(context, 'socket-path') ??
      context.environment['ASSAY_SERVER_SOCKET'] ??
      '/run/assay/server.sock',
    { clock: context.clock },
  )
}

/** The agent's administration API. The caller disposes of the connection. */
export function connectAgentAdministration(context: CommandContext): Connection {
  return connectUnix(
    optional(context, 'admin-socket-path') ??
      context.environment['ASSAY_AGENT_ADMIN_SOCKET'] ??
      '/run/assay/agent-admin/admin.sock',
    { clock: context.clock },
  )
}

/** The Workload API's address, `unix:///path`. */
export function workloadEndpoint(context: CommandContext): string {
  const path = optional(context, 'socket-path')
  if (path !== undefined) return `unix://${path}`
  return context.environment['SPIFFE_ENDPOINT_SOCKET'] ?? 'unix:///run/assay/agent/api.sock'
}
