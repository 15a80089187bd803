import { AssayError } from '#base/errors.ts'
import type {
  LoggerDefinition,
  SetLogLevelRequest,
} from '#rpc/gen/spire/api/agent/logger/v1/logger.ts'
import { type Logger, LogLevel } from '#rpc/gen/spire/api/types/logger.ts'
import type { Handlers } from '#rpc/service.ts'
import type { LogLevel as Level } from '#telemetry/log.ts'

/** SPIRE's levels as ours: there is none above `error` and none below `debug`. */
const levels: Readonly<Record<number, Level>> = {
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

/** `spire.api.agent.logger.v1.Logger`: changes what is logged until the next start. */
export function loggerService(log: { level: Level }): Handlers<LoggerDefinition> {
  const launchLevel = log.level
  const answer = (): Logger => ({
    currentLevel: numbers[log.level],
    launchLevel: numbers[launchLevel],
  })
  return {
    getLogger: async () => answer(),
    setLogLevel: async ({ newLevel }: SetLogLevelRequest) => {
      const level = levels[newLevel]
      if (level === undefined) {
        throw new AssayError(
          'invalid-argument',
          `cannot set log level ${newLevel}: it is not known`,
        )
      }
      log.level = level
      return answer()
    },
    resetLogLevel: async () => {
      log.level = launchLevel
      return answer()
    },
  }
}
