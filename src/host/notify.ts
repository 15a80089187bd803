import { hostAddon } from './native.ts'

/** Tells systemd how a `Type=notify` service is doing (sd_notify(3)). */
export interface Notifier {
  /** Started, or done reloading. */
  ready(): void
  /** One line for `systemctl status`. */
  status(text: string): void
  reloading(): void
  stopping(): void
  /** Still healthy: to be sent at least once per `watchdogMs`, and only after checking that it is true. */
  watchdog(): void
  /** Half of WATCHDOG_USEC, as sd_watchdog_enabled(3) recommends; undefined when systemd expects no pings. */
  readonly watchdogIntervalMs: number | undefined
}

/** The variables that systemd sets for a service. */
export interface NotifyEnvironment {
  readonly NOTIFY_SOCKET?: string | undefined
  readonly WATCHDOG_USEC?: string | undefined
  readonly WATCHDOG_PID?: string | undefined
}

export interface NotifierOptions {
  readonly environment: NotifyEnvironment
  /** Our own process, which WATCHDOG_PID must name if it is set. */
  readonly pid: number
  /** Called when a message could not be sent. The service goes on all the same. */
  readonly onError: (error: unknown) => void
}

/** A notifier that does nothing when systemd did not ask to be told (no NOTIFY_SOCKET). */
export function createNotifier(options: NotifierOptions): Notifier {
  const { environment, pid, onError } = options
  const socket = environment.NOTIFY_SOCKET ?? ''
  const send = (...lines: readonly string[]): void => {
    if (socket === '') return
    try {
      hostAddon().sendDatagram(socket, lines.join('\n'))
    } catch (error) {
      onError(error)
    }
  }
  return {
    ready: () => send('READY=1'),
    status: (text) => send(`STATUS=${text.replace(/[\r\n]+/g, ' ').slice(0, 1000)}`),
    // The time is what lets systemd tell this reload from an earlier one (sd_notify(3), MONOTONIC_USEC).
    reloading: () => send('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`),
    stopping: () => send('STOPPING=1'),
    watchdog: () => send('WATCHDOG=1'),
    watchdogIntervalMs: watchdogIntervalMs(environment, pid),
  }
}

function watchdogIntervalMs(environment: NotifyEnvironment, pid: number): number | undefined {
  const { WATCHDOG_USEC: microseconds = '', WATCHDOG_PID: expected = '' } = environment
  if (!/^[1-9]\d{0,15}$/.test(microseconds)) return undefined
  if (expected !== '' && expected !== String(pid)) return undefined
  return Number(microseconds) / 2000
}
