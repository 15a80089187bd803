import process from 'node:process'
import { bindToCore, usage } from './processes.ts'

/** A row of the table: what one kind of call costs. */
export interface Figure {
  readonly work: string
  /** Operations a second. */
  readonly rate: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** CPU time of the serving process for one operation: microseconds. */
  readonly cpu: number
  /** CPU time of its children, such as assay-signer, for one operation: microseconds. */
  readonly childrenCpu: number
  /** Resident memory of the serving process, children included, at the end: megabytes. */
  readonly memory: number
}

/** What was found out otherwise: names with their units, and numbers. */
export interface Finding {
  readonly work: string
  readonly values: Readonly<Record<string, number>>
}

export interface Load {
  readonly work: string
  /** The serving process. */
  readonly pid: number
  /** Calls in flight. Default 16. */
  readonly concurrency?: number
  /** Operations that one call does. */
  readonly operations?: number
  call(): Promise<void>
}

/** How long and how often a load is put on. */
export interface Effort {
  readonly seconds: number
  readonly runs: number
}

export const warmUpSeconds = 1

const quantile = (sorted: Float64Array, q: number): number =>
  sorted[Math.floor((sorted.length - 1) * q)] ?? 0

async function run(load: Load, seconds: number): Promise<Float64Array> {
  const latencies: number[] = []
  const until = performance.now() + seconds * 1000
  const worker = async (): Promise<void> => {
    while (performance.now() < until) {
      const start = performance.now()
      await load.call()
      latencies.push(performance.now() - start)
    }
  }
  await Promise.all(Array.from({ length: load.concurrency ?? 16 }, worker))
  return Float64Array.from(latencies).sort()
}

async function measureOnce(load: Load, seconds: number): Promise<Figure> {
  await run(load, warmUpSeconds)
  const before = usage(load.pid)
  const start = performance.now()
  const latencies = await run(load, seconds)
  const elapsed = (performance.now() - start) / 1000
  const after = usage(load.pid)
  const operations = latencies.length * (load.operations ?? 1)
  const micros = (seconds: number): number => (seconds / operations) * 1e6
  return {
    work: load.work,
    rate: operations / elapsed,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    cpu: micros(after.cpuSeconds - before.cpuSeconds),
    childrenCpu: micros(after.childrenCpuSeconds - before.childrenCpuSeconds),
    memory: after.residentBytes / 2 ** 20,
  }
}

/**
 * Keeps calls in flight for the seconds asked for, several times, and returns the middle run by CPU time. Who
 * serves and who calls get a core each.
 */
export async function measure(load: Load, { seconds, runs }: Effort): Promise<Figure> {
  bindToCore(load.pid, 0)
  bindToCore(process.pid, 1)
  const figures: Figure[] = []
  for (let index = 0; index < runs; index++) figures.push(await measureOnce(load, seconds))
  const cpuOf = ({ cpu, childrenCpu }: Figure): number => cpu + childrenCpu
  figures.sort((a, b) => cpuOf(a) - cpuOf(b))
  return figures[Math.floor(figures.length / 2)] as Figure
}

/** The middle one and the worst of several waits, in milliseconds. */
export function summary(waits: readonly number[]): Readonly<Record<string, number>> {
  const sorted = Float64Array.from(waits).sort()
  return { 'median ms': quantile(sorted, 0.5), [`worst of ${waits.length} ms`]: sorted.at(-1) ?? 0 }
}
