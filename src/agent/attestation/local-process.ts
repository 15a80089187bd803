import { readFileSync } from 'node:fs'
import { AssayError } from '#base/errors.ts'
import { closePidfd, openPidfd, readStartTime, verifySameProcess } from '#host/process.ts'
import type { WorkloadProcess } from '../plugin/workload-attestor/workload-attestor.ts'

/**
 * Takes hold of a process by its number, for an operator who asks about it. It is held until disposed.
 *
 * @throws AssayError `not-found` when there is no such process, or it cannot be looked at.
 */
export function holdProcess(pid: number): WorkloadProcess & Disposable {
  try {
    const pidfd = openPidfd(pid)
    try {
      const startTime = readStartTime(pid)
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      const assertSame = (): void => verifySameProcess({ pid, pidfd, startTime })
      assertSame()
      return {
        pid,
        uid: effectiveId(status, 'Uid'),
        gid: effectiveId(status, 'Gid'),
        assertSame,
        [Symbol.dispose]: () => closePidfd(pidfd),
      }
    } catch (error) {
      closePidfd(pidfd)
      throw error
    }
  } catch (error) {
    throw notThere(pid, error)
  }
}

function effectiveId(status: string, name: 'Uid' | 'Gid'): number {
  const [, id] = new RegExp(`^${name}:\\s+\\d+\\s+(\\d+)`, 'm').exec(status) ?? []
  if (id === undefined) throw new SyntaxError(`/proc/PID/status has no ${name}`)
  return Number(id)
}

function notThere(pid: number, cause: unknown): AssayError {
  return new AssayError('not-found', `cannot look at process ${pid}: it is not running here`, {
    cause,
  })
}
