import type { CallContext } from '#rpc/call.ts'
import type {
  ResetLogLevelRequest,
  SetLogLevelRequest,
} from '#rpc/gen/spire/api/server/logger/v1/logger.ts'
import { type Logger, LogLevel } from '#rpc/gen/spire/api/types/logger.ts'
import { notesOf } from './call-notes.ts'
import { malformed } from './messages.ts'

/** The part of a process's log that this service needs. */
export interface AdjustableLog {
  level: 'debug' | 'info' | 'warn' | 'error'
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

/** `spire.api.server.logger.v1.Logger`: changes what is logged until the next start. */
export function newLoggerService(log: AdjustableLog) {
  const launchLevel = log.level
  const answer = (): Logger => ({
    currentLevel: numbers[log.level],
    launchLevel: numbers[launchLevel],
  })
  return {
    getLogger: async () => answer(),

    async setLogLevel({ newLevel }: SetLogLevelRequest, context: CallContext) {
      const level = levels[newLevel]
      if (level === undefined) throw malformed('log level', `${newLevel} is not known`)
      notesOf(context).details = { level, before: log.level }
      log.level = level
      return answer()
    },

    async resetLogLevel(_request: ResetLogLevelRequest, context: CallContext) {
      notesOf(context).details = { level: launchLevel, before: log.level }
      log.level = launchLevel
      return answer()
    },
  }
}
