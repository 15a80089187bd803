/** The variables that systemd sets for a service that it opened sockets for (sd_listen_fds(3)). */
export interface ListenEnvironment {
  readonly LISTEN_PID?: string | undefined
  readonly LISTEN_FDS?: string | undefined
  readonly LISTEN_FDNAMES?: string | undefined
}

/** SD_LISTEN_FDS_START. */
const firstFd = 3

/** More than this is a mistake. */
const maxFds = 64

/**
 * The listening sockets systemd passed to this process, by name: `FileDescriptorName=` of the socket unit, or
 * else the unit's own name. Empty without socket activation, or when the variables were meant for another
 * process.
 *
 * @throws RangeError when LISTEN_FDS is not a number from 0 to 64.
 */
export function activatedSockets(
  environment: ListenEnvironment,
  pid: number,
): ReadonlyMap<string, readonly number[]> {
  const { LISTEN_PID, LISTEN_FDS = '0', LISTEN_FDNAMES = '' } = environment
  const sockets = new Map<string, number[]>()
  if (LISTEN_PID !== String(pid)) return sockets
  const count = /^\d{1,3}$/.test(LISTEN_FDS) ? Number(LISTEN_FDS) : maxFds + 1
  if (count > maxFds) {
    throw new RangeError(`invalid LISTEN_FDS '${LISTEN_FDS}': not a number from 0 to ${maxFds}`)
  }
  const names = LISTEN_FDNAMES.split(':')
  for (let i = 0; i < count; i++) {
    const name = names[i] || 'unknown'
    const fds = sockets.get(name)
    if (fds === undefined) sockets.set(name, [firstFd + i])
    else fds.push(firstFd + i)
  }
  return sockets
}
