import { readdirSync, readFileSync } from 'node:fs'

/** Clock ticks a second: what USER_HZ is on every Linux that Node runs on. */
const ticksPerSecond = 100
const pageBytes = 4096

interface Stat {
  readonly parent: number
  /** Of the process and of children it has waited for. */
  readonly cpuSeconds: number
  readonly residentBytes: number
}

function stat(pid: number): Stat | undefined {
  try {
    // The name, in parentheses, may hold anything; fields are counted from behind it.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []
    const number = (index: number): number => Number(fields[index - 3])
    const ticks = number(14) + number(15) + number(16) + number(17)
    return {
      parent: number(4),
      cpuSeconds: ticks / ticksPerSecond,
      residentBytes: number(24) * pageBytes,
    }
  } catch {
    return undefined
  }
}

/** What a process and all below it use. */
export interface Usage {
  readonly cpuSeconds: number
  readonly residentBytes: number
}

/** The CPU time and memory of `pid` and its descendants that run now. */
export function usage(pid: number): Usage {
  const all = new Map<number, Stat>()
  for (const name of readdirSync('/proc')) {
    const one = /^\d+$/.test(name) ? stat(Number(name)) : undefined
    if (one !== undefined) all.set(Number(name), one)
  }
  let cpuSeconds = 0
  let residentBytes = 0
  for (const [candidate, one] of all) {
    let at = candidate
    while (at !== pid && at > 1) at = all.get(at)?.parent ?? 0
    if (at !== pid) continue
    cpuSeconds += one.cpuSeconds
    residentBytes += one.residentBytes
  }
  return { cpuSeconds, residentBytes }
}
