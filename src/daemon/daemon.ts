import type { Clock } from '#base/clock.ts'
import type { Random } from '#base/random.ts'
import type { Schema } from '#config/schema.ts'
import type { Notifier } from '#host/notify.ts'
import type { LogFormat, LogLevel, ProcessLog } from '#telemetry/log.ts'

/** What a daemon gets from the process it runs in. */
export interface DaemonProcess {
  readonly clock: Clock
  readonly random: Random
  readonly log: ProcessLog
  readonly notifier: Notifier
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
}

/** What each daemon's configuration has. */
export interface DaemonConfig {
  readonly trust_domain: string
  readonly log_level: LogLevel
  readonly log_format: LogFormat
}

/** What runs until it is told to stop, or ends by itself with `End`. */
export interface Daemon<Config, End> extends AsyncDisposable {
  run(signal: AbortSignal): Promise<End>
  /** Takes over what may change while it runs, and returns the keys that have changed and need a restart. */
  reload(config: Config): readonly string[] | Promise<readonly string[]>
}

/** A daemon as a program: what {@link runDaemon} needs to know to be its `main`. */
export interface DaemonProgram<Config extends DaemonConfig, End> {
  /** For the log; the program is `assay-` and this. */
  readonly name: 'server' | 'agent'
  readonly usage: string
  readonly schema: Schema<Config>
  /** Permissions that nothing it makes has. */
  readonly umask: number
  /** What is allowed but probably not meant, one sentence each. */
  readonly warnings: (config: Config) => readonly string[]
  /** What is wrong in the files that the configuration names, one sentence each. */
  readonly problems: (
    config: Config,
    process: Pick<DaemonProcess, 'clock' | 'random' | 'monotonicMs'>,
  ) => Promise<readonly string[]>
  /** @throws AssayError `failed-precondition` when an operator has to act first. */
  readonly open: (config: Config, process: DaemonProcess) => Promise<Daemon<Config, End>>
  /** Zero: it has stopped, as it was told. */
  readonly exitStatus: (end: End) => number
}
