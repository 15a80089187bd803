import { AssayError } from '#base/errors.ts'
import type { CallContext } from './call.ts'
import type { LoggerDefinition as AgentLoggerDefinition } from './gen/spire/api/agent/logger/v1/logger.ts'
import type { LoggerDefinition as ServerLoggerDefinition } from './gen/spire/api/server/logger/v1/logger.ts'
import { type Logger, LogLevel } from './gen/spire/api/types/logger.ts'
import type { Handlers } from './service.ts'

/** The part of a process's log that this service needs. */
export interface AdjustableLog {
  level: 'debug' | 'info' | 'warn' | 'error'
}

/** What a call has changed. */
export interface LevelChange {
  readonly level: AdjustableLog['level']
  readonly before: AdjustableLog['level']
}

/** SPIRE's levels as ours: there is none above `error` and none below `debug`. */
const levels: Readonly<Record<number, AdjustableLog['level']>> = {
  [LogLevel.PANIC]: 'error',
  [LogLevel.FATAL]: 'error',
  [LogLevel.ERROR]: 'error',
  [LogLevel.WARN]: 'warn',
  [LogLevel.INFO]: 'info',
  [LogLevel.DEBUG]: 'debug',
  [LogLevel.TRACE]: 'debug',
}

const numbers = {
  error: LogLevel.ERROR,
  warn: LogLevel.WARN,
  info: LogLevel.INFO,
  debug: LogLevel.DEBUG,
} as const

/** `Logger` of SPIRE's server and agent: changes what is logged until the next start. */
export function loggerHandlers(
  log: AdjustableLog,
  onChange: (change: LevelChange, context: CallContext) => void = () => undefined,
): Handlers<ServerLoggerDefinition> & Handlers<AgentLoggerDefinition> {
  const launchLevel = log.level
  const answer = (): Logger => ({
    currentLevel: numbers[log.level],
    launchLevel: numbers[launchLevel],
  })
  const change = (level: AdjustableLog['level'], context: CallContext): Logger => {
    onChange({ level, before: log.level }, context)
    log.level = level
    return answer()
  }
  return {
    getLogger: async () => answer(),

    async setLogLevel({ newLevel }, context) {
      const level = levels[newLevel]
      if (level !== undefined) return change(level, context)
      throw new AssayError('invalid-argument', `invalid log level: ${newLevel} is not known`, {
        reason: 'malformed-request',
      })
    },

    resetLogLevel: async (_request, context) => change(launchLevel, context),
  }
}
