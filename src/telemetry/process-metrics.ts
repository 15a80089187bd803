import { readdirSync } from 'node:fs'
import process from 'node:process'
import type { Registry } from 'prom-client'
import Counter from 'prom-client/lib/counter.js'
import Gauge from 'prom-client/lib/gauge.js'

/** Metrics of the process itself, by the names that Prometheus' own clients give them; read when asked for. */
export function addProcessMetrics(registry: Registry): void {
  const registers = [registry]
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })
  }
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'User and system CPU time, in seconds.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage()
      this.reset()
      this.inc((user + system) / 1e6)
    },
  })
  gauge('process_resident_memory_bytes', 'Resident memory, in bytes.', () =>
    process.memoryUsage.rss(),
  )
  gauge('process_start_time_seconds', 'Unix time at which the process started.', () =>
    Math.floor(performance.timeOrigin / 1000),
  )
  gauge('process_open_fds', 'Open file descriptors.', () => readdirSync('/proc/self/fd').length)
  gauge(
    'nodejs_heap_size_used_bytes',
    'Memory that JavaScript objects take, in bytes.',
    () => process.memoryUsage().heapUsed,
  )
  let last = performance.eventLoopUtilization()
  gauge(
    'nodejs_eventloop_utilization',
    'Share of the time since the last reading in which the event loop was busy: 0 to 1.',
    () => {
      const now = performance.eventLoopUtilization()
      const { utilization } = performance.eventLoopUtilization(now, last)
      last = now
      return utilization
    },
  )
}
