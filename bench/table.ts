import type { Figure, Finding } from './measure.ts'

const firstWidth = 54

const columns: readonly (readonly [name: string, cell: (of: Figure) => string])[] = [
  ['per second', ({ rate }) => rate.toFixed(rate < 100 ? 1 : 0)],
  ['p50 ms', ({ p50 }) => p50.toFixed(2)],
  ['p99 ms', ({ p99 }) => p99.toFixed(2)],
  ['CPU µs', ({ cpu }) => cpu.toFixed(0)],
  ['children', ({ childrenCpu }) => childrenCpu.toFixed(0)],
  ['MB', ({ memory }) => memory.toFixed(0)],
]

const width = 10

export const head =
  'work'.padEnd(firstWidth) + columns.map(([name]) => name.padStart(width)).join('')

/** One line: a figure in columns, a finding in words. */
export function line(result: Figure | Finding): string {
  if ('values' in result) {
    const words = Object.entries(result.values).map(
      ([unit, value]) => `${value.toFixed(value < 10 ? 2 : 0)} ${unit}`,
    )
    return `${result.work.padEnd(firstWidth)}  ${words.join(', ')}`
  }
  return (
    result.work.padEnd(firstWidth) +
    columns.map(([, cell]) => cell(result).padStart(width)).join('')
  )
}
