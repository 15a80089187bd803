import { hostAddon } from './native.ts'
import { closePidfd, isAlive, openPidfd, readStartTime } from './process.ts'

/** The process at the other end of a Unix socket, as of the moment it called connect(2). */
export interface PeerCredentials {
  /** Zero when the process is in a PID namespace that ours cannot see into. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** The caller's to close. Undefined when the process is gone or out of sight. */
  readonly pidfd: number | undefined
  /** Clock ticks since boot; zero when the process is gone or out of sight. */
  readonly startTime: bigint
}

/**
 * Reads who is connected. Call it as soon as the connection is accepted: before Linux 6.5 the kernel gives no
 * pidfd of the peer, and one is opened by number, which is certain only from then on.
 *
 * @throws Error when `fd` is not a connected Unix socket.
 */
export function readPeerCredentials(fd: number): PeerCredentials {
  const [pid, uid, gid] = hostAddon().peerCredentials(fd)
  const absent = { pid, uid, gid, pidfd: undefined, startTime: 0n }
  if (pid <= 0) return absent
  const pidfd = openPeerPidfd(fd, pid)
  if (pidfd === undefined) return absent
  try {
    const startTime = readStartTime(pid)
    // Alive after the start time was read: so it was this process's, and not a successor's of the same number.
    if (isAlive(pidfd)) return { pid, uid, gid, pidfd, startTime }
  } catch {
    // The process ended between the two calls.
  }
  closePidfd(pidfd)
  return absent
}

/**
 * The supplementary groups of the process at the other end, as of the moment it called connect(2): what it does to
 * its groups later, or what a program it becomes may not have, changes nothing.
 *
 * @throws Error when `fd` is not a connected Unix socket.
 */
export function readPeerGroups(fd: number): readonly number[] {
  return hostAddon().peerGroups(fd)
}

function openPeerPidfd(fd: number, pid: number): number | undefined {
  try {
    return hostAddon().peerPidfd(fd)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOPROTOOPT') return undefined
  }
  try {
    return openPidfd(pid)
  } catch {
    return undefined
  }
}
