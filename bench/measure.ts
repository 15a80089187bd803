import { usage } from './processes.ts'

/** One row of the table. */
export interface Figure {
  readonly work: string
  /** Operations a second. */
  readonly rate: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** CPU time of the serving process, children included, for one operation: microseconds. */
  readonly cpu: number
  /** Resident memory of the serving process, children included, at the end: megabytes. */
  readonly memory: number
}

export interface Load {
  readonly work: string
  /** The serving process. */
  readonly pid: number
  /** Calls in flight. */
  readonly concurrency: number
  readonly seconds: number
  /** Operations that one call does. */
  readonly operations?: number
  call(): Promise<void>
}

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
  await Promise.all(Array.from({ length: load.concurrency }, worker))
  return Float64Array.from(latencies).sort()
}

/** Warms up for half a second, then keeps `concurrency` calls in flight for `seconds`. */
export async function measure(load: Load): Promise<Figure> {
  await run(load, 0.5)
  const before = usage(load.pid)
  const start = performance.now()
  const latencies = await run(load, load.seconds)
  const elapsed = (performance.now() - start) / 1000
  const after = usage(load.pid)
  const operations = latencies.length * (load.operations ?? 1)
  return {
    work: load.work,
    rate: operations / elapsed,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    cpu: ((after.cpuSeconds - before.cpuSeconds) / operations) * 1e6,
    memory: after.residentBytes / 2 ** 20,
  }
}

/** The middle one of several runs by CPU time. */
export async function median(load: Load, runs: number): Promise<Figure> {
  const figures: Figure[] = []
  for (let index = 0; index < runs; index++) figures.push(await measure(load))
  figures.sort((a, b) => a.cpu - b.cpu)
  return figures[Math.floor(figures.length / 2)] as Figure
}
