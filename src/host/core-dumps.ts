import { hostAddon } from './native.ts'

/**
 * Sets this process's core size limit to zero for good, so that keys in memory never reach a disk by a crash.
 * It does not make the process undumpable (PR_SET_DUMPABLE): that would give /proc/self to root and take it
 * away from ourselves. A core handler that is a pipe ignores the limit unless it is zero, which this is
 * (core(5)); a debugger with CAP_SYS_PTRACE is not held off by it.
 */
export function forbidCoreDumps(): void {
  hostAddon().forbidCoreDumps()
}
