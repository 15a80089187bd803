import assert from 'node:assert/strict'
import { closeSync, openSync } from 'node:fs'
import { test } from 'node:test'
import Registry from 'prom-client/lib/registry.js'
import { addProcessMetrics } from './process-metrics.ts'

async function read(registry: Registry): Promise<ReadonlyMap<string, number>> {
  const lines = (await registry.metrics()).split('\n').filter((line) => /^\w/.test(line))
  return new Map(lines.map((line) => [line.split(' ')[0] ?? '', Number(line.split(' ')[1])]))
}

test('addProcessMetrics() reads each metric anew', async () => {
  const registry = new Registry()
  addProcessMetrics(registry)
  const before = await read(registry)
  assert.deepEqual(
    [...before.keys()],
    [
      'process_cpu_seconds_total',
      'process_resident_memory_bytes',
      'process_start_time_seconds',
      'process_open_fds',
      'nodejs_heap_size_used_bytes',
      'nodejs_eventloop_utilization',
    ],
  )
  const until = process.cpuUsage().user + 20_000
  while (process.cpuUsage().user < until);
  const fd = openSync('/dev/null', 'r')
  const after = await read(registry)
  closeSync(fd)
  const grownBy = (name: string): number => (after.get(name) ?? 0) - (before.get(name) ?? 0)
  assert.ok(grownBy('process_cpu_seconds_total') >= 0.02)
  assert.equal(grownBy('process_open_fds'), 1)
  assert.equal(grownBy('process_start_time_seconds'), 0)
})
