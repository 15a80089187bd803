import { pino } from 'pino'
import type { Clock } from '#base/clock.ts'
import type { Log, LogFields } from '#base/log.ts'
import { textLine } from './text-line.ts'

/** From the most talkative to the quietest. */
const logLevels = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof logLevels)[number]

/** `json`: one object a line, for collectors. `text`: one line for people. */
export type LogFormat = 'json' | 'text'

/** Where finished lines go; each ends with a newline. */
export interface LineSink {
  write(line: string): unknown
}

/** The log of a process. Components get it, or a child of it, as a `Log`. */
export interface ProcessLog extends Log {
  /** Set it at any time; children follow at once. */
  level: LogLevel
  /** Writes whatever the level is: for audit records. */
  readonly unfiltered: Log
}

/**
 * Opens the log on standard error. Lines are written before the call returns, so that the last words of a
 * process that dies are not lost. Nothing is redacted: a secret is never passed to a log.
 */
export function openLog(options: {
  readonly level: LogLevel
  readonly format: LogFormat
  readonly clock: Clock
  /**
   * Begins each line with its priority, as `<4>`, which systemd's journal takes off and keeps (sd-daemon(3)). Audit
   * records, and they alone, are notices.
   */
  readonly priorities?: boolean
  /** Standard error when absent. */
  readonly sink?: LineSink
}): ProcessLog {
  const { format, clock } = options
  const threshold: Threshold = { level: options.level }
  const sink: LineSink = options.sink ?? pino.destination({ fd: 2, sync: true })
  const logger = pino(
    {
      level: 'debug',
      base: null,
      messageKey: 'message',
      timestamp: () => `,"time":"${clock.now().toString({ smallestUnit: 'millisecond' })}"`,
      formatters: { level: (level) => ({ level }) },
      serializers: {
        // Where in the program it was is for who looks into the program.
        error: (error: unknown) => describeError(error, { stacks: threshold.level === 'debug' }),
      },
    },
    {
      write: (line: string) =>
        sink.write(
          (options.priorities === true ? priorityOf(line) : '') +
            (format === 'json' ? line : textLine(line)),
        ),
    },
  )
  return new PinoLog(logger, threshold)
}

/** As syslog(3) has them; 5, a notice, is for audit records. */
const priorities: ReadonlyMap<string, number> = new Map([
  ['debug', 7],
  ['info', 6],
  ['warn', 4],
  ['error', 3],
])

/** The beginning of a line is what nobody but this file has written. */
const beginning = /^\{"level":"([a-z]+)","time":"[^"]*"(,"audit":true,)?/

function priorityOf(line: string): string {
  const [, level = '', audit] = beginning.exec(line) ?? []
  return `<${audit === undefined ? (priorities.get(level) ?? 6) : 5}>`
}

/** One for all children: pino's own children keep the level they were made with. */
interface Threshold {
  level: LogLevel
}

class PinoLog implements ProcessLog {
  readonly #logger: pino.Logger
  readonly #threshold: Threshold

  constructor(logger: pino.Logger, threshold: Threshold) {
    this.#logger = logger
    this.#threshold = threshold
  }

  get level(): LogLevel {
    return this.#threshold.level
  }

  set level(level: LogLevel) {
    this.#threshold.level = level
  }

  get unfiltered(): Log {
    return new PinoLog(this.#logger, { level: 'debug' })
  }

  debug(fields: LogFields, message: string): void {
    if (this.#admits('debug')) this.#logger.debug(fields, message)
  }

  info(fields: LogFields, message: string): void {
    if (this.#admits('info')) this.#logger.info(fields, message)
  }

  warn(fields: LogFields, message: string): void {
    if (this.#admits('warn')) this.#logger.warn(fields, message)
  }

  error(fields: LogFields, message: string): void {
    if (this.#admits('error')) this.#logger.error(fields, message)
  }

  child(fields: LogFields): Log {
    return new PinoLog(this.#logger.child(fields), this.#threshold)
  }

  #admits(level: LogLevel): boolean {
    return logLevels.indexOf(level) >= logLevels.indexOf(this.#threshold.level)
  }
}

/** Deepest chain of causes that is written. */
const maxCauses = 8

function describeError(
  error: unknown,
  { stacks, depth = 0 }: { readonly stacks: boolean; readonly depth?: number },
): unknown {
  if (!(error instanceof Error)) return error
  const { name, message, stack, cause } = error
  return {
    name,
    message,
    ...('code' in error ? { code: error.code } : {}),
    ...('reason' in error && error.reason !== undefined ? { reason: error.reason } : {}),
    // The failures we raise on purpose say enough; a stack is for those we did not expect.
    ...(name === 'AssayError' || !stacks ? {} : { stack }),
    ...(cause === undefined || depth >= maxCauses
      ? {}
      : { cause: describeError(cause, { stacks, depth: depth + 1 }) }),
  }
}
