import type { Clock } from '#base/clock.ts'
import type { Notifier } from '#host/notify.ts'
import type { Health } from '#telemetry/health.ts'

/** Tells systemd, as often as it wants to hear it, that the event loop turns and that no part needs a restart. */
export async function pingWatchdog(
  {
    notifier,
    health,
    clock,
    onPing,
  }: {
    readonly notifier: Notifier
    readonly health: Health
    readonly clock: Clock
    /** Called each time. Must not throw. */
    readonly onPing?: () => void
  },
  signal: AbortSignal,
): Promise<void> {
  const { watchdogIntervalMs } = notifier
  if (watchdogIntervalMs === undefined) return
  const interval = Temporal.Duration.from({ milliseconds: Math.floor(watchdogIntervalMs) })
  for (;;) {
    if (health.report().live) notifier.watchdog()
    onPing?.()
    await clock.sleep(interval, signal)
  }
}
