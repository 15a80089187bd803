import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

/** Clock ticks a second: what USER_HZ is on every Linux that Node runs on. */
const ticksPerSecond = 100
const pageBytes = 4096

interface Stat {
  readonly parent: number
  /** Of the process and of children it has waited for. */
  readonly cpuSeconds: number
  readonly residentBytes: number
  /** Since the machine booted. */
  readonly startSeconds: number
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
      startSeconds: number(22) / ticksPerSecond,
    }
  } catch {
    return undefined
  }
}

/** What a process and all below it use. */
export interface Usage {
  readonly cpuSeconds: number
  /** Of those below it. */
  readonly childrenCpuSeconds: number
  /** Of them all. */
  readonly residentBytes: number
}

/** The CPU time and memory of `pid` and its descendants that run now. */
export function usage(pid: number): Usage {
  const all = new Map<number, Stat>()
  for (const name of readdirSync('/proc')) {
    const one = /^\d+$/.test(name) ? stat(Number(name)) : undefined
    if (one !== undefined) all.set(Number(name), one)
  }
  let childrenCpuSeconds = 0
  let residentBytes = 0
  for (const [candidate, one] of all) {
    let at = candidate
    while (at !== pid && at > 1) at = all.get(at)?.parent ?? 0
    if (at !== pid) continue
    if (candidate !== pid) childrenCpuSeconds += one.cpuSeconds
    residentBytes += one.residentBytes
  }
  return { cpuSeconds: all.get(pid)?.cpuSeconds ?? 0, childrenCpuSeconds, residentBytes }
}

export const residentMegabytes = (pid: number): number => usage(pid).residentBytes / 2 ** 20

/** How long a process has run, in milliseconds, to a hundredth of a second. */
export function ageMs(pid: number): number {
  const [uptime = ''] = readFileSync('/proc/uptime', 'utf8').split(' ')
  return (Number(uptime) - (stat(pid)?.startSeconds ?? 0)) * 1000
}

/** Binds a process, as it is now, to one core. */
export function bindToCore(pid: number, core: number): void {
  try {
    execFileSync('taskset', ['--all-tasks', '--pid', '--cpu-list', String(core), String(pid)], {
      stdio: 'ignore',
    })
  } catch {
    // One core, or no taskset: the figures are noisier, not wrong.
  }
}
