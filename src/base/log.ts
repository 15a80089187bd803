/** Fields of one log record. Never a secret: no key, PIN, token or CSR private part. */
export type LogFields = Readonly<Record<string, unknown>>

/**
 * Structured logging as components see it. `pino` satisfies it; tests pass {@link silentLog}.
 * An error goes in the field `error`, a SPIFFE ID in `spiffeId`, a refusal's stable name in `reason`.
 */
export interface Log {
  debug(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
  /** A log whose every record also has `fields`. */
  child(fields: LogFields): Log
}

/** Drops everything. */
export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLog,
}
