import { closeSync, readFileSync } from 'node:fs'
import { AssayError } from '#base/errors.ts'
import { hostAddon } from './native.ts'

/** What names one process for its whole life: a number alone is given again once the process has ended. */
export interface ProcessIdentity {
  readonly pid: number
  /** Zero: it could not be read, and no check on this process can succeed. */
  readonly startTime: bigint
  readonly pidfd: number | undefined
}

/**
 * A pidfd of a process. The caller closes it with {@link closePidfd}. A pid may have been given to another
 * process before this call: compare {@link readStartTime} with what was known before.
 *
 * @throws Error with code `ESRCH` when there is no such process.
 */
export function openPidfd(pid: number): number {
  return hostAddon().pidfdOpen(pid)
}

export function closePidfd(pidfd: number): void {
  closeSync(pidfd)
}

/** Whether the process of a pidfd has not ended. One that has, and was not waited for, counts as ended. */
export function isAlive(pidfd: number): boolean {
  return hostAddon().pidfdAlive(pidfd)
}

/**
 * When a process started, in clock ticks since boot (proc_pid_stat(5), field 22).
 *
 * @throws Error with code `ENOENT` or `ESRCH` when there is no such process.
 */
export function readStartTime(pid: number): bigint {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  // The second field is the name in parentheses, which may itself hold spaces and parentheses.
  const field = text.slice(text.lastIndexOf(')') + 2).split(' ')[22 - 3]
  if (field === undefined || !/^\d+$/.test(field)) {
    throw new SyntaxError(
      `cannot read the start time of process ${pid}: /proc/${pid}/stat is not as expected`,
    )
  }
  return BigInt(field)
}

/**
 * Throws unless `process` is still the one it was. Call it after reading anything below /proc/PID: what was
 * read before belongs to this process only when this then returns.
 *
 * @throws AssayError `permission-denied`, reason `workload-gone`.
 */
export function verifySameProcess(process: ProcessIdentity): void {
  const { pid, pidfd, startTime } = process
  if (pid <= 0 || startTime === 0n)
    throw gone(pid, 'it was gone, or out of sight, when it connected')
  // The order matters: a pid whose pidfd is alive after the start time was read has not been given again.
  let now: bigint
  try {
    now = readStartTime(pid)
  } catch (cause) {
    throw gone(pid, 'it has ended', cause)
  }
  if (now !== startTime) throw gone(pid, 'its number now belongs to another process')
  if (pidfd !== undefined && !isAlive(pidfd)) throw gone(pid, 'it has ended')
}

function gone(pid: number, why: string, cause?: unknown): AssayError {
  return new AssayError('permission-denied', `cannot vouch for process ${pid}: ${why}`, {
    reason: 'workload-gone',
    cause,
  })
}
